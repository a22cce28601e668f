"""What a check found: one line, and advice if something should be done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """
    about    what was checked, in a word or two
    told     what was found
    remedy   what to do about it; None: nothing is wrong
    problem  whether the server cannot work because of it; otherwise the remedy is only advice
    """

    about: str
    told: str
    remedy: str | None = None
    problem: bool = False

    @property
    def state(self) -> str:
        if self.problem:
            return "problem"
        return "note" if self.remedy else "ok"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"state": self.state}

    def __str__(self) -> str:
        line = f"{self.state:>7}  {self.about:<12} {self.told}"
        return f"{line}\n{'':>22}-> {self.remedy}" if self.remedy else line
