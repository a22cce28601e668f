"""For users: what a person at a terminal, or a Python program, calls.

from gptoss import LLM
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss.llm import LLM as LLM

__all__ = ["LLM"]


def __getattr__(name: str) -> Any:
    """Imports `LLM` when it is first used, so that `gptoss --help` does not import torch."""
    if name != "LLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gptoss.llm import LLM

    return LLM
