"""Replays sampled tokens: where a client's history repeats what was sampled, the prompt gets the same tokens.

The assistant's harmony messages are called parts here: a chain of thought, a preamble, a call, an answer.  A
client sends them back in its own format, perhaps without some of them.  Each part that it sends is compared
with the sampled one:

* If all visible parts are unchanged, the sampled parts are used, with the chain of thought that the client
  may have dropped.
* If only the chain of thought was changed, the client's is used, and the sampled tokens of the other parts.
* Otherwise the client's text is used.
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
    call      the call, if the part is one
    tokens    as sampled, from `<|start|>` on; empty if unknown
    thinking  whether no answer has followed yet, so that chains of thought are kept
    """

    kind: Kind
    text: str
    call: Call | None = None
    tokens: Sequence[int] = ()
    thinking: bool = True

    def matches(self, other: Part) -> bool:
        """Whether both have the same meaning, so that one can replace the other."""
        if self.kind != other.kind:
            return False
        if self.call is not None and other.call is not None and self.call.name != other.call.name:
            return False
        return self.text == other.text or (self.kind == "call" and _same_json(self.text, other.text))


@dataclass(slots=True)
class _Span:
    """The range of a history, from `start` to before `end`, that corresponds to one sample."""

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
        """The parts of consecutive messages of the assistant.

        messages  each with a flag: whether its chain of thought is kept
        actions   call id → the tokens sampled for the action that ended in this call
        """
        sent: list[Part] = []
        known: list[tuple[int, list[Part]]] = []
        for message, thinking in messages:
            if message.sampled and (sampled := self.split(message.sampled)):
                known.append((len(sent), sampled))
            sent += _parts(message, thinking)
        spans = self._actions(sent, actions)
        covered = {i for span in spans for i in range(span.start, span.end)}
        limits = sorted({*(start for start, _ in known), *(span.start for span in spans), len(sent)})
        for start, sampled in known:
            if start not in covered and start < len(sent):
                limit = next(limit for limit in limits if limit > start)
                spans.append(_Span(start, _span_end(sent, start, limit, _visible(sampled)), sampled))
        spans.sort(key=lambda span: span.start)
        parts: list[Part] = []
        done = 0
        for span in spans:
            parts += sent[done : span.start]
            parts += _merged(sent[span.start : span.end], span.sampled)
            done = span.end
        return parts + sent[done:]

    def split(self, tokens: Sequence[int]) -> list[Part]:
        """The parts of a sample, up to the first that is not valid harmony.

        tokens  all messages, without the first `<|start|>assistant`
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

    def _actions(self, sent: Sequence[Part], actions: Mapping[str, Sequence[int]]) -> list[_Span]:
        """The spans that end with a call whose tokens are known."""
        spans: list[_Span] = []
        done = 0
        for i, part in enumerate(sent):
            if part.call is not None and (sampled := self.split(actions.get(part.call.id, ()))):
                start = _span_start(sent, i, done, _visible(sampled))
                spans.append(_Span(start, i + 1, sampled))
                done = i + 1
        return spans

    def _part(self, piece: list[int]) -> Part | None:
        """The part that these tokens are; None if they are no message, or their header is malformed."""
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
    """Whether two texts are the same JSON value: some clients parse arguments and write them again."""
    value = _value(one)
    return value is not None and value == _value(other)


def _value(text: str) -> str | None:
    """A canonical text of a JSON value; None if `text` is not JSON.  JavaScript writes 1.0 as 1."""
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


def _span_end(sent: Sequence[Part], start: int, limit: int, visible: Sequence[Part]) -> int:
    """The end of the span that begins at `start` and has these visible parts; at most `limit`."""
    end, left = start, len(visible)
    while end < limit and (left or sent[end].kind == "analysis"):
        left -= sent[end].kind != "analysis"
        end += 1
        if not left and visible:
            break
    return end


def _span_start(sent: Sequence[Part], last: int, limit: int, visible: Sequence[Part]) -> int:
    """The start of the span that ends with the call at `last`; at least `limit`."""
    start, left = last, len(visible) - 1
    while start > limit and (left or sent[start - 1].kind == "analysis"):
        start -= 1
        left -= sent[start].kind != "analysis"
    return start


def _merged(sent: Sequence[Part], sampled: Sequence[Part]) -> list[Part]:
    """The parts of a span as the prompt will contain them."""
    if not sent:
        return []
    thinking = sent[0].thinking
    ours, theirs = _visible(sampled), _visible(sent)
    if len(ours) == len(theirs) and all(a.matches(b) for a, b in zip(ours, theirs, strict=True)):
        if _same_thoughts(sampled, sent):
            return [Part(part.kind, part.text, part.call, part.tokens, thinking) for part in sampled]
        left = iter(ours)
        return [part if part.kind == "analysis" else _with_tokens(part, next(left)) for part in sent]
    # Something is missing or changed: use the tokens of the unchanged first parts, and of the last.
    merged = list(sent)
    for i in range(min(len(sent), len(sampled))):
        if not sampled[i].matches(sent[i]):
            break
        merged[i] = _with_tokens(sent[i], sampled[i])
    if sampled[-1].matches(sent[-1]):
        merged[-1] = _with_tokens(sent[-1], sampled[-1])
    return merged


def _same_thoughts(sampled: Sequence[Part], sent: Sequence[Part]) -> bool:
    """Whether the client sent the sampled chains of thought: all, some or none of them, or all joined."""
    ours = [part.text for part in sampled if part.kind == "analysis"]
    theirs = [part.text for part in sent if part.kind == "analysis"]
    left = iter(ours)
    return all(text in left for text in theirs) or "".join(theirs) == "".join(ours)


def _with_tokens(sent: Part, sampled: Part) -> Part:
    return Part(sent.kind, sent.text, sent.call, sampled.tokens, sent.thinking)
