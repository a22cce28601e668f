"""One row of the report: what was checked, expected and found, and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["right", "wrong", "info"]


@dataclass(frozen=True, slots=True)
class Row:
    """
    about     what was checked
    expected  in words; empty if nothing is published, and then the verdict is "info"
    """

    about: str
    expected: str
    found: str
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(about: str, expected: str, found: str, right: bool) -> Row:
    return Row(about, expected, found, "right" if right else "wrong")


def info(about: str, found: str) -> Row:
    return Row(about, "", found, "info")


def table(rows: list[Row]) -> str:
    """The report as a text table."""
    lines = [("", "what", "expected", "found")]
    lines += [(row.verdict, row.about, row.expected or "-", row.found) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line[:3], widths, strict=True)), line[3]])
        for line in lines
    )
