"""What was sampled, found again in the history that a client sends: then the prompt has the very same tokens.

The model thinks and acts in harmony messages, here called parts: a chain of thought, a preamble, a call, an
answer.  A client sends them back in its own shapes, perhaps without some of them; what it says of them is
compared with what was sampled, part by part:

* Where all that was visible is still the same, the sampled parts stand in its place, with the chain of
  thought that the client may have dropped.
* A chain of thought that the client changed is taken from the client, the other parts from the sample.
* Otherwise the client is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from language.harmony.messages import Call, Message
from language.harmony.sampled_header import SampledHeader
from language.tokenizer import Tokenizer

Kind = Literal["analysis", "commentary", "final", "call"]


@dataclass(frozen=True, slots=True)
class Part:
    """One harmony message of the assistant.

    text      its body
    call      of a call
    tokens    as they were sampled, from `<|start|>` on; empty if that is not known
    thinking  no answer has followed yet: chains of thought are kept
    """

    kind: Kind
    text: str
    call: Call | None = None
    tokens: Sequence[int] = ()
    thinking: bool = True

    def says(self, other: Part) -> bool:
        """Whether both say the same, so that one may stand for the other."""
        if self.kind != other.kind:
            return False
        if self.call is not None and other.call is not None and self.call.name != other.call.name:
            return False
        return self.text == other.text or (self.kind == "call" and _same_json(self.text, other.text))


@dataclass(slots=True)
class _Stretch:
    """Where in a history the parts of one sample are thought to stand: from `start` to before `end`."""

    start: int
    end: int
    sampled: list[Part]


class Replay:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start = tokenizer.special("<|start|>")
        self._channel = tokenizer.special("<|channel|>")
        self._constrain = tokenizer.special("<|constrain|>")
        self._message = tokenizer.special("<|message|>")
        self._ends = {tokenizer.special(name) for name in ("<|end|>", "<|return|>", "<|call|>")}
        self._assistant = tokenizer.encode("assistant")

    def parts(
        self, messages: Sequence[tuple[Message, bool]], actions: Mapping[str, Sequence[int]]
    ) -> list[Part]:
        """The parts of messages of the assistant that follow one another.

        messages  each with whether its chain of thought is kept
        actions   call id → the tokens sampled for the action that ended in this call
        """
        said: list[Part] = []
        known: list[tuple[int, list[Part]]] = []
        for message, thinking in messages:
            if message.sampled and (sampled := self.split(message.sampled)):
                known.append((len(said), sampled))
            said += _parts(message, thinking)
        stretches = self._actions(said, actions)
        covered = {i for stretch in stretches for i in range(stretch.start, stretch.end)}
        limits = sorted(
            {*(start for start, _ in known), *(stretch.start for stretch in stretches), len(said)}
        )
        for start, sampled in known:
            if start not in covered and start < len(said):
                limit = next(limit for limit in limits if limit > start)
                stretches.append(_Stretch(start, _forward(said, start, limit, _visible(sampled)), sampled))
        stretches.sort(key=lambda stretch: stretch.start)
        parts: list[Part] = []
        done = 0
        for stretch in stretches:
            parts += said[done : stretch.start]
            parts += _merged(said[stretch.start : stretch.end], stretch.sampled)
            done = stretch.end
        return parts + said[done:]

    def split(self, tokens: Sequence[int]) -> list[Part]:
        """The parts of what was sampled, up to what is not the harmony that a prompt may have.

        tokens  from behind `<|start|>assistant` on, of as many messages as there were
        """
        pieces: list[list[int]] = []
        begin = 0
        for i in [i for i, id in enumerate(tokens) if id == self._start] + [len(tokens)]:
            if i > begin:
                pieces.append(list(tokens[begin:i]))
            begin = i
        parts: list[Part] = []
        for piece in pieces:
            if (part := self._part(piece)) is None:
                break
            parts.append(part)
        return parts

    def _actions(self, said: Sequence[Part], actions: Mapping[str, Sequence[int]]) -> list[_Stretch]:
        """The stretches that are known by the calls that end them."""
        stretches: list[_Stretch] = []
        done = 0
        for i, part in enumerate(said):
            if part.call is not None and (sampled := self.split(actions.get(part.call.id, ()))):
                start = _backward(said, i, done, _visible(sampled))
                stretches.append(_Stretch(start, i + 1, sampled))
                done = i + 1
        return stretches

    def _part(self, piece: list[int]) -> Part | None:
        """What one message says; None if it is none, or its header is no proper one."""
        if piece[0] != self._start:
            piece = [self._start, *self._assistant, *piece]
        if self._message not in piece:
            return None
        body_at = piece.index(self._message) + 1
        parsed = self._header(piece[1 : body_at - 1]).parse()
        if parsed.deviations or parsed.foreign_role or parsed.channel is None:
            return None
        body = piece[body_at:]
        if body and body[-1] in self._ends:
            body = body[:-1]
        text = self._tokenizer.decode(body)
        if parsed.recipient is not None:
            name = parsed.recipient.removeprefix("functions.")
            return Part("call", text, Call("", name, text), piece)
        return Part(parsed.channel, text, None, piece)

    def _header(self, tokens: Sequence[int]) -> SampledHeader:
        header = SampledHeader()
        section: list[int] = []
        for id in (*tokens, self._message):
            if id not in (self._channel, self._constrain, self._message):
                section.append(id)
                continue
            header.add(self._tokenizer.decode(section))
            section = []
            if id == self._channel:
                header.channel = ""
            elif id == self._constrain:
                header.type = ""
        return header


def _same_json(one: str, other: str) -> bool:
    """Whether two texts are the same JSON: arguments may travel as an object, which has no spelling."""
    value = _value(one)
    return value is not None and value == _value(other)


def _value(text: str) -> str | None:
    """One spelling for each JSON value; None if it is none.  JavaScript writes 1.0 as 1."""
    try:
        return json.dumps(json.loads(text, parse_int=float), sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _parts(message: Message, thinking: bool) -> list[Part]:
    parts: list[Part] = []
    if message.reasoning:
        parts.append(Part("analysis", message.reasoning, thinking=thinking))
    if message.is_final:
        parts.append(Part("final", message.content or "", thinking=thinking))
    elif message.content:
        parts.append(Part("commentary", message.content, thinking=thinking))
    parts += (Part("call", call.arguments, call, thinking=thinking) for call in message.calls)
    return parts


def _visible(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.kind != "analysis"]


def _forward(said: Sequence[Part], start: int, limit: int, visible: Sequence[Part]) -> int:
    """Where the stretch ends that begins at `start` and has these visible parts; at `limit` at the latest."""
    end, left = start, len(visible)
    while end < limit and (left or said[end].kind == "analysis"):
        left -= said[end].kind != "analysis"
        end += 1
        if not left and visible:
            break
    return end


def _backward(said: Sequence[Part], last: int, limit: int, visible: Sequence[Part]) -> int:
    """Where the stretch begins that ends with the call at `last`; at `limit` at the earliest."""
    start, left = last, len(visible) - 1
    while start > limit and (left or said[start - 1].kind == "analysis"):
        start -= 1
        left -= said[start].kind != "analysis"
    return start


def _merged(said: Sequence[Part], sampled: Sequence[Part]) -> list[Part]:
    """The parts of a stretch, as the prompt is to have them."""
    if not said:
        return []
    thinking = said[0].thinking
    ours, theirs = _visible(sampled), _visible(said)
    if len(ours) == len(theirs) and all(a.says(b) for a, b in zip(ours, theirs, strict=True)):
        thought = "".join(part.text for part in said if part.kind == "analysis")
        if thought in ("", "".join(part.text for part in sampled if part.kind == "analysis")):
            return [Part(part.kind, part.text, part.call, part.tokens, thinking) for part in sampled]
        left = iter(ours)
        return [part if part.kind == "analysis" else _known(part, next(left)) for part in said]
    # Something is missing or changed: what is the same at the beginning, and else at the end, is known.
    merged = list(said)
    for i in range(min(len(said), len(sampled))):
        if not sampled[i].says(said[i]):
            break
        merged[i] = _known(said[i], sampled[i])
    if sampled[-1].says(said[-1]):
        merged[-1] = _known(said[-1], sampled[-1])
    return merged


def _known(said: Part, sampled: Part) -> Part:
    return Part(said.kind, said.text, said.call, sampled.tokens, said.thinking)
