"""Parses what the model samples, token by token, into deltas: reasoning, content, calls.

A state machine over token ids:

    header  role, channel, recipient, type; its text is kept until `<|message|>` ends the header
    body    text, released at character boundaries; the header determines which kind of delta it becomes
    between two messages, only `<|start|>` is expected

The reader never raises, whatever the tokens, and each piece of a body's text is in exactly one delta.
Deviations from the format are repaired, and counted in `recoveries`:

* An unknown or missing channel is read as `final`.
* A missing `<|start|>` opens a message of the same role.  A missing `<|end|>` closes the message before.
* Text where a header should be is `final`; so is the text after a header that is too long.
* A header that is cut off before its body yields nothing.
* A message in another role than the assistant's (`user`, `functions.f`) becomes reasoning.
* Every recipient is a call, whatever the channel, except those that are not tools (`assistant`, `user`,
  `all`).  The model may omit `functions.`, or call a built-in tool (`python` on analysis) that was not
  declared.  The client gets the name, and can answer that there is no such function.
* Special tokens that mean nothing in their place are ignored.

A commentary message without a recipient is a preamble, which is content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from language.harmony.messages import Tool
from language.harmony.sampled_header import SampledHeader
from language.tokenizer import Detokenizer, Tokenizer


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the chain of thought."""

    text: str


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """A piece of the visible text.  In the channel `commentary` it is a preamble before a call."""

    text: str
    channel: Literal["commentary", "final"] = "final"


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins; `index` counts the calls of this answer from 0.

    name       as the model wrote it, without `functions.`; or the client's name for it
    namespace  the client's namespace
    """

    index: int
    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A piece of the arguments of a call, as the model writes them: not always JSON."""

    index: int
    arguments: str


Delta = ReasoningDelta | ContentDelta | CallStart | CallDelta
Place = Literal["header", "reasoning", "content", "call"]


class Reader:
    """Parses one answer.

    place       where the last token belongs, also if it completed no character
    recoveries  number of deviations from the format so far
    """

    def __init__(
        self, tokenizer: Tokenizer, prefilled_channel: str | None = None, tools: Iterable[Tool] = ()
    ) -> None:
        """
        prefilled_channel  the channel whose body the prompt has begun; None if it ends with `assistant`
        tools              the declared tools; calls of others are parsed too
        """
        self._channels = {tool.recipient: tool.channel for tool in tools}
        self._names = {id: name for name, id in tokenizer.specials.items()}
        self._text = Detokenizer(tokenizer)
        self._header: SampledHeader | None = SampledHeader(given=True)
        self._write: Callable[[str], Delta] | None = None  # in a body: text → delta
        self._calls = 0
        self.place: Place = "header"
        self.recoveries = 0
        if prefilled_channel is not None:
            self._open_body(SampledHeader(given=True, channel=prefilled_channel))

    def feed(self, token_id: int) -> list[Delta]:
        """The deltas of a token: usually one; none in a header or in the middle of a character."""
        name = self._names.get(token_id)
        if name is not None:
            return self._rest() + self._control(name)
        text = self._text.feed(token_id)
        if not text:
            return []
        return [self._write(text)] if self._write else self._add(text)

    def finish(self) -> list[Delta]:
        """The remaining deltas, when no more tokens follow."""
        deltas = self._rest()
        if self._header and self._header.channel is None:
            deltas += self._abandon()
        self._close()
        return deltas

    # -- text ------------------------------------------------------------------------------------------------

    def _rest(self) -> list[Delta]:
        """The incomplete character before a control token or the end."""
        text = self._text.flush()
        return self._add(text) if text else []

    def _add(self, text: str) -> list[Delta]:
        if self._write is not None:
            return [self._write(text)]
        if self._header is None:
            self.recoveries += 1  # no <|start|>
            self._header = SampledHeader()
        self._header.add(text)
        if self._header.plausible:
            return []
        self.recoveries += 1  # no <|message|>
        return self._open_body(self._header, self._header.take_body())

    def _abandon(self) -> list[Delta]:
        """The body text in a header that never got a body; none for the header of a call."""
        header = self._header
        if header is None:
            return []
        parsed = header.parse()
        if parsed.recipient or (header.channel is not None and parsed.channel is None):
            return []
        text = header.take_body()
        return self._open_body(header, text) if text.strip() else []

    # -- control tokens --------------------------------------------------------------------------------------

    def _control(self, name: str) -> list[Delta]:
        match name:
            case "<|start|>":
                if self._write or self._header:
                    self.recoveries += 1  # no <|end|>, or a header without a body
                deltas = self._abandon()
                self._close()
                self._header = SampledHeader()
                return deltas
            case "<|channel|>":
                self._section(name)
                return []
            case "<|constrain|>" if self._write is None:
                self._section(name)
                return []
            case "<|message|>" if self._write is None:
                if self._header is None:
                    self.recoveries += 1
                return self._open_body(self._header or SampledHeader())
            case "<|end|>" | "<|return|>" | "<|call|>":
                return self._end(name)
            case _:
                self.recoveries += 1
                return []

    def _section(self, name: str) -> None:
        """Begin the next section of a header."""
        if self._header is None:
            self.recoveries += 1  # no <|start|>, perhaps no <|end|> before it
            self._close()
            self._header = SampledHeader()
        if name == "<|constrain|>":
            self._header.type = ""
            return
        if self._header.channel is not None:
            self.recoveries += 1
        self._header.channel = ""
        self._header.type = None

    def _end(self, name: str) -> list[Delta]:
        deltas: list[Delta] = []
        if self._write is None:
            self.recoveries += 1  # nothing to end, or a header without a body
            deltas = self._abandon()
        elif (self.place == "call") != (name == "<|call|>"):
            self.recoveries += 1
        self._close()
        return deltas

    def _close(self) -> None:
        self._header = None
        self._write = None
        self.place = "header"

    # -- bodies ----------------------------------------------------------------------------------------------

    def _open_body(self, header: SampledHeader, text: str = "") -> list[Delta]:
        """Begin the body of the message with this header; `text` is its beginning."""
        deltas: list[Delta] = []
        self._header = None
        parsed = header.parse()
        self.recoveries += parsed.deviations
        if parsed.recipient is not None:
            name = parsed.recipient.removeprefix("functions.")
            known = self._channels.get(parsed.recipient)
            if known is None and name != parsed.recipient:
                known = "commentary"
            self.recoveries += parsed.channel != known
            index = self._calls
            self._calls += 1
            self._write, self.place = partial(CallDelta, index), "call"
            deltas.append(CallStart(index, name))
        elif parsed.channel == "analysis" or parsed.foreign_role:
            self._write, self.place = ReasoningDelta, "reasoning"
        elif parsed.channel == "commentary":
            self._write, self.place = partial(ContentDelta, channel="commentary"), "content"
        else:
            self._write, self.place = ContentDelta, "content"
        return deltas + self._add(text) if text else deltas
