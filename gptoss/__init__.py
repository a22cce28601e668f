"""PEOPLE: what somebody at a keyboard or in Python uses.

from gptoss import LLM
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss.llm import LLM as LLM

__all__ = ["LLM"]


def __getattr__(name: str) -> Any:
    """`LLM`, imported when it is asked for: `gptoss --help` answers without torch."""
    if name != "LLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gptoss.llm import LLM

    return LLM
