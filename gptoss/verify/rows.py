"""One row of the report: what was expected, what was found, and what follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["right", "wrong", "told"]


@dataclass(frozen=True, slots=True)
class Row:
    """
    about     what was looked at
    expected  in words; empty where nothing is published, and then the verdict is "told"
    """

    about: str
    expected: str
    found: str
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(about: str, expected: str, found: str, right: bool) -> Row:
    return Row(about, expected, found, "right" if right else "wrong")


def told(about: str, found: str) -> Row:
    return Row(about, "", found, "told")


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [("", "what", "expected", "found")]
    lines += [(row.verdict, row.about, row.expected or "-", row.found) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line[:3], widths, strict=True)), line[3]])
        for line in lines
    )
