"""Messages and their content blocks as the messages of a conversation.

A user's message may contain results of calls.  An assistant's message contains everything that it thought,
wrote and called before them.  Sampled tokens are attached where a signature contains them, so that the prompt
has the same tokens again (language/harmony/replay.py); if a client drops the thinking, they are found by the
id of a call (dialogue/reasoning_cache.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from language.harmony.messages import Call, Message
from language.names import FunctionNames
from server.api.shared_fields import Body, ManyObjects
from server.errors import bad_request, unsupported

OpenSignature = Callable[[str], tuple[Sequence[int], str]]
"""A signature → the tokens that are encrypted in it, and their text; nothing if it is not ours."""

BILLING = "x-anthropic-billing-header:"
"""The beginning of a line that Claude Code puts before its instructions.  The line changes with each request,
so with it in the prompt, no prefix could be reused.
"""

PARAGRAPH = "\n\n"


class Source(Body):
    type: str | None = None
    media_type: str | None = None
    data: str | None = None
    content: str | ManyObjects[Block] | None = None


class Block(Body):
    """A content block of any type.  Which fields a type needs is checked as the conversation is built."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | ManyObjects[Block] | None = None
    is_error: bool | None = None
    source: str | Source | None = None
    title: str | None = None
    context: str | None = None
    tool_name: str | None = None


class MessageBody(Body):
    role: Literal["user", "assistant", "system"]
    content: str | ManyObjects[Block]

    def blocks(self, where: str) -> Iterator[tuple[str, Block]]:
        """The blocks, each with its path."""
        if isinstance(self.content, str):
            yield f"{where}.content", Block(type="text", text=self.content)
            return
        for i, block in enumerate(self.content):
            yield f"{where}.content[{i}]", block


def instructions(system: str | Sequence[Block] | None) -> list[Message]:
    """The system prompt as the first message; no message if it is empty.  Raises ApiError."""
    if isinstance(system, str):
        texts = [system]
    else:
        texts = [_text(block, f"system[{i}]") for i, block in enumerate(system or ())]
    texts = [_without_billing(text) for text in texts]
    text = PARAGRAPH.join(text for text in texts if text)
    return [Message("system", text)] if text else []


def _without_billing(text: str) -> str:
    return text.partition("\n")[2].lstrip("\n") if text.startswith(BILLING) else text


@dataclass(slots=True)
class History:
    """
    names           the tools' names for the client and for the model
    open_signature  decrypts a signature
    messages        of the conversation so far
    """

    names: FunctionNames
    open_signature: OpenSignature
    messages: list[Message] = field(default_factory=list)
    _calls: set[str] = field(default_factory=set)

    def add_all(self, messages: Sequence[MessageBody]) -> None:
        """Raises ApiError."""
        placed = [(f"messages[{i}]", message) for i, message in enumerate(messages)]
        for role, group in groupby(placed, key=lambda each: each[1].role):
            if role == "assistant":
                self._assistant([each for where, message in group for each in message.blocks(where)])
                continue
            for where, message in group:
                blocks = list(message.blocks(where))
                if role == "user":
                    self._user(blocks)
                else:
                    self._add_texts("system", [_text(block, path) for path, block in blocks])
        if messages[-1].role == "assistant":
            param = f"messages[{len(messages) - 1}].role"
            why = "an answer cannot be begun for this model; the conversation must end with a user message"
            raise unsupported(f"{param}: {why}", param)

    def _add_texts(self, role: Literal["system", "user"], texts: Sequence[str]) -> None:
        self.messages.append(Message(role, PARAGRAPH.join(texts)))

    def _user(self, blocks: Sequence[tuple[str, Block]]) -> None:
        """Results of calls, and the texts around them, in their order."""
        for results, group in groupby(blocks, key=lambda each: each[1].type == "tool_result"):
            if not results:
                self._add_texts("user", [_text(block, path) for path, block in group])
                continue
            for path, block in group:
                if block.tool_use_id not in self._calls:
                    param = f"{path}.tool_use_id"
                    id = (block.tool_use_id or "")[:100]
                    raise bad_request(f"{param}: {id!r} is the id of no tool_use block before it", param)
                self.messages.append(Message("tool", _result(block, path), call_id=block.tool_use_id))

    def _assistant(self, blocks: Sequence[tuple[str, Block]]) -> None:
        """Everything in consecutive messages of the assistant."""
        last_call = max((i for i, (_, block) in enumerate(blocks) if block.type == "tool_use"), default=-1)
        for i, (path, block) in enumerate(blocks):
            match block.type:
                case "text":
                    self._text(_text(block, path), preamble=i < last_call)
                case "thinking" | "redacted_thinking":
                    self._thinking(block)
                case "tool_use":
                    self._call(block, path)
                case _:
                    raise _unknown(block, path)

    def _text(self, text: str, preamble: bool) -> None:
        last = self.messages[-1] if self.messages else None
        if last and last.role == "assistant" and last.content and last.preamble == preamble:
            self.messages.pop()  # a client may split one answer into several blocks
            text = last.content + text
        if text:
            self.messages.append(Message("assistant", text, preamble=preamble))

    def _thinking(self, block: Block) -> None:
        tokens, sealed = self.open_signature(block.signature or block.data or "")
        thought = block.thinking or sealed
        if thought:
            self.messages.append(Message("assistant", None, thought, preamble=True, sampled=tokens))

    def _call(self, block: Block, path: str) -> None:
        if not block.id or not block.name or len(block.name) > 256:
            param = f"{path}.{'id' if not block.id else 'name'}"
            raise bad_request(f"{param}: a tool_use block needs it, and not too long", param)
        if block.id in self._calls:
            raise bad_request(f"{path}.id: there are two tool_use blocks with this id", f"{path}.id")
        self._calls.add(block.id)
        call = Call(block.id, self.names.to_model(block.name), _compact(block.input or {}))
        self.messages.append(Message("assistant", calls=(call,)))


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Writes arguments as the model usually does.  If they were sampled here, the sampled tokens are used
instead.
"""


def _result(block: Block, path: str) -> str:
    """The result of a tool.  If it is an error and the text does not say so, that is added."""
    if isinstance(block.content, list):
        text = PARAGRAPH.join(_part(part, f"{path}.content[{i}]") for i, part in enumerate(block.content))
    else:
        text = block.content or ""
    says_so = text[:20].lower().startswith(("error", "<tool_use_error"))
    return f"Error: {text}" if block.is_error and not says_so else text


def _part(block: Block, path: str) -> str:
    """A part of a result.  The client often cannot avoid an image in it, so the model gets a note instead of
    the image.
    """
    match block.type:
        case "image":
            return "[an image, which this model cannot see]"
        case "tool_reference":
            return f"The tool {block.tool_name} is there."
        case _:
            return _text(block, path)


def _text(block: Block, path: str) -> str:
    """The text of a block in a user or system message."""
    match block.type:
        case "text":
            if block.text is None:
                raise bad_request(f"{path}.text: it is missing", f"{path}.text")
            return block.text
        case "document":
            return _headed(_document(block.source, f"{path}.source"), block.title, block.context)
        case "search_result":
            source = block.source if isinstance(block.source, str) else None
            return _headed(_texts(block.content, f"{path}.content"), block.title, source)
    raise _unknown(block, path)


def _document(source: str | Source | None, path: str) -> str:
    match source:
        case Source(type="text", data=str(text)):
            return text
        case Source(type="content", content=content) if content is not None:
            return _texts(content, f"{path}.content")
        case Source(type="base64" | "url" | "file" as kind):
            raise unsupported(f"{path}.type: this model reads text, not {kind!r}", f"{path}.type")
    raise bad_request(f"{path}: a document needs one, of type 'text' with data", path)


def _texts(content: str | Sequence[Block] | None, path: str) -> str:
    if isinstance(content, str):
        return content
    return PARAGRAPH.join(_text(block, f"{path}[{i}]") for i, block in enumerate(content or ()))


def _headed(text: str, *heads: str | None) -> str:
    return "\n".join([*filter(None, heads), text])


def _unknown(block: Block, path: str) -> Exception:
    return unsupported(f"{path}.type: {block.type[:100]!r}; this model reads text here", f"{path}.type")
