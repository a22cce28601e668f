"""Turns deltas into content blocks: thinking, text, tool_use.  One block is open at a time, in order.

The same steps make streams and whole answers, so the events of a stream add up to the whole answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, ReasoningDelta
from server.dialogue.answer import AnswerReader
from server.sse import dumps

Kind = Literal["thinking", "text", "signature", "partial_json"]


@dataclass(frozen=True, slots=True)
class Start:
    """A block begins; `block` has its first fields."""

    index: int
    block: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the open block."""

    index: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    index: int


Step = Start | Piece | Stop


class Blocks:
    """
    reader          that the deltas come from
    sealed          the tokens of a chain of thought → its signature
    shows_thinking  False: a thinking block has only a signature
    declared        names of tools whose arguments a grammar forces to be an object
    """

    def __init__(
        self,
        reader: AnswerReader,
        sealed: Callable[[Sequence[int]], str],
        shows_thinking: bool,
        declared: Collection[str],
    ):
        self._reader, self._sealed, self._shows_thinking = reader, sealed, shows_thinking
        self._declared = declared
        self._count = 0
        self._open: object = None  # "thinking"; a text's channel; a call's index
        self._held: list[str] | None = None  # arguments that may be anything, until they are complete
        self._signed = 0

    def steps(self, deltas: Sequence[Delta]) -> list[Step]:
        """The steps for these deltas."""
        steps: list[Step] = []
        for delta in deltas:
            match delta:
                case ReasoningDelta(text):
                    self._in("thinking", {"type": "thinking", "thinking": "", "signature": ""}, steps)
                    if self._shows_thinking:
                        steps.append(self._piece("thinking", text))
                case ContentDelta(text, channel):
                    self._in(channel, {"type": "text", "text": ""}, steps)
                    steps.append(self._piece("text", text))
                case CallStart(index, name):
                    id = self._reader.calls[index]
                    self._in(index, {"type": "tool_use", "id": id, "name": name, "input": {}}, steps)
                    self._held = None if name in self._declared else []
                case CallDelta(_, arguments) if self._held is not None:
                    self._held.append(arguments)
                case CallDelta(_, arguments):
                    steps.append(self._piece("partial_json", arguments))
        return steps

    def end(self) -> list[Step]:
        """After the last delta."""
        steps: list[Step] = []
        self._close(steps)
        return steps

    def _in(self, what: object, block: dict[str, Any], steps: list[Step]) -> None:
        """Append the steps that make this block the open one."""
        if self._open == what:
            return
        self._close(steps)
        steps.append(Start(self._count, block))
        self._open = what

    def _piece(self, kind: Kind, text: str) -> Piece:
        return Piece(self._count, kind, text)

    def _close(self, steps: list[Step]) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            steps.append(self._piece("signature", self._sealed(self._reader.thoughts[self._signed])))
            self._signed += 1
        elif self._held is not None:
            steps.append(self._piece("partial_json", _as_object("".join(self._held))))
            self._held = None
        steps.append(Stop(self._count))
        self._count += 1
        self._open = None


@dataclass(slots=True)
class Gathered:
    """Blocks put together, as a client does it."""

    blocks: list[dict[str, Any]] = field(default_factory=list)
    _pieces: dict[Kind, list[str]] = field(default_factory=dict)

    def add(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Start(_, block):
                    self.blocks.append(dict(block))
                case Piece(_, kind, text):
                    self._pieces.setdefault(kind, []).append(text)
                case Stop():
                    for kind, texts in self._pieces.items():
                        text = "".join(texts)
                        if kind == "partial_json":
                            self.blocks[-1]["input"] = _object(text) or {}
                        else:
                            self.blocks[-1][kind] = text
                    self._pieces = {}


def _object(text: str) -> dict[str, Any] | None:
    """The object in a JSON text, which is incomplete if the answer was cut; None if there is none."""
    try:
        value = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _as_object(arguments: str) -> str:
    """Arguments as the JSON text of an object.  No grammar forced them to be one, because their function was
    not declared.
    """
    return arguments if _object(arguments) is not None else dumps({"input": arguments})
