"""The items of a Responses request as the messages of a conversation.

Clients send our own items back in many ways: complete, by reference, encrypted, or without the chain of
thought.  The sampled tokens are attached wherever they can be found, so that the prompt has the same tokens
again (language/harmony/replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from language.harmony.messages import Message
from language.harmony.render import Renderer
from server.api.responses import actions
from server.api.responses.tools import Tools
from server.errors import ApiError, bad_request, unsupported

MAX_ITEMS = 10_000

IGNORED = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call",
     "mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response", "computer_call",
     "computer_call_output", "tool_search_call", "tool_search_output", "additional_tools",
     "compaction_trigger", "configuration_update")
)  # fmt: skip
"""Items of tools that other servers run.  A history that began there is continued without them."""

Item = Mapping[str, Any]


class Known(Protocol):
    """The stored and encrypted items of one owner."""

    def item(self, id: str) -> tuple[Item, Sequence[int]] | None:
        """A stored item with its sampled tokens, if it has any."""

    def unsealed(self, text: str) -> list[int]:
        """The tokens of `encrypted_content`; none if it is not ours."""


@dataclass(slots=True)
class History:
    """
    messages  of the conversation
    paths     for each message, the field of the request that it is from
    items     number of items so far
    """

    tools: Tools
    known: Known
    renderer: Renderer
    messages: list[Message] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    items: int = 0

    def add_all(self, items: Sequence[Item], where: str) -> None:
        """Raises ApiError."""
        self.items += len(items)
        if self.items > MAX_ITEMS:
            raise bad_request(
                f"{where}: there are {self.items} items so far; at most {MAX_ITEMS} are read", where
            )
        resolved = [(*self._resolved(item, f"{where}[{i}]"), f"{where}[{i}]") for i, item in enumerate(items)]
        preambles = _preambles([item for item, _, _ in resolved])
        for (item, sampled, path), is_preamble in zip(resolved, preambles, strict=True):
            for message in self._messages(item, sampled, path):
                if message.role == "assistant" and is_preamble:
                    message = replace(message, preamble=True)
                self.messages.append(message)
                self.paths.append(path)

    def _resolved(self, item: Item, path: str) -> tuple[Item, Sequence[int]]:
        """The item, or the one that a reference names, and its sampled tokens if they were stored."""
        id, kind = item.get("id"), type_of(item)
        found = self.known.item(id) if isinstance(id, str) and _is_ours(item) else None
        if kind == "item_reference":
            if not isinstance(id, str):
                raise bad_request(f"{path}.id: a reference needs it", f"{path}.id")
            if found is None:
                raise ApiError(
                    404, f"{path}: there is no item {id[:100]!r} here", param=f"{path}.id", code="not_found"
                )
            return found
        if found is None:
            return item, ()
        return found if kind == "reasoning" and not _thought(item) else (item, found[1])

    def _messages(self, item: Item, sampled: Sequence[int], path: str) -> Iterator[Message]:
        kind = type_of(item)
        match kind:
            case "message":
                yield self._message(item, sampled, path)
            case "reasoning":
                yield from self._reasoning(item, sampled)
            case (
                "function_call" | "custom_tool_call" | "local_shell_call" | "shell_call" | "apply_patch_call"
            ):
                yield self._call(item, sampled, path)
            case (
                "function_call_output"
                | "custom_tool_call_output"
                | "shell_call_output"
                | "apply_patch_call_output"
            ):
                content = item.get("output")
                if kind.startswith(("shell", "apply")):
                    text = actions.output(item)
                else:
                    text = _text(content, f"{path}.output", UNSEEN)
                yield self._result(item, text, path)
            case "local_shell_call_output":
                id = item.get("call_id") or item.get("id")
                if not isinstance(id, str):
                    raise bad_request(f"{path}.id: it is missing", f"{path}.id")
                yield Message("tool", actions.output(item), call_id=id)
            case _ if kind in IGNORED:
                return
            case _:
                raise unsupported(
                    f"{path}.type: this server does not know items of type {kind[:100]!r}", f"{path}.type"
                )

    def _message(self, item: Item, sampled: Sequence[int], path: str) -> Message:
        role = item.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise bad_request(f"{path}.role: it must be system, developer, user or assistant", f"{path}.role")
        text = _text(item.get("content"), f"{path}.content")
        if role != "assistant":
            return Message(role, text)
        return Message("assistant", text, sampled=sampled)

    def _reasoning(self, item: Item, sampled: Sequence[int]) -> Iterator[Message]:
        sealed = item.get("encrypted_content")
        if isinstance(sealed, str) and sealed and (unsealed := self.known.unsealed(sealed)):
            sampled = unsealed
        thought = _thought(item)
        if not thought and sampled:
            thought = "".join(part.text for part in self.renderer.sampled_parts(sampled))
        if thought:
            yield Message("assistant", None, thought, sampled=sampled)

    def _result(self, item: Item, text: str, path: str) -> Message:
        """The result of a call; if the call's id is missing, it belongs to the function with its `name`."""
        name, namespace = item.get("name"), item.get("namespace")
        if item.get("call_id") is None and isinstance(name, str):
            call = self.tools.call("", name, namespace if isinstance(namespace, str) else None, "")
            return Message("tool", text, name=call.name)
        return Message("tool", text, call_id=_string(item, "call_id", path))

    def _call(self, item: Item, sampled: Sequence[int], path: str) -> Message:
        kind = type_of(item)
        id = _string(item, "call_id", path)
        namespace = item.get("namespace")
        if kind in ("function_call", "custom_tool_call"):
            name = _string(item, "name", path)
            text = kind == "custom_tool_call"
            arguments = _string(item, "input" if text else "arguments", path)
        else:
            name, text = kind.removesuffix("_call"), False
            arguments = actions.arguments(item)
            if sampled and (parts := self.renderer.sampled_parts(sampled)) and parts[-1].call:
                arguments = parts[-1].text  # the model's own spelling
        call = self.tools.call(id, name, namespace if isinstance(namespace, str) else None, arguments, text)
        return Message("assistant", None, calls=(call,), sampled=sampled)


def type_of(item: Item) -> str:
    """The type of an item, also of messages and references without a `type`."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if set(item) == {"id"} else "unknown"
    return kind if isinstance(kind, str) else "unknown"


def _is_ours(item: Item) -> bool:
    """Whether this server may have made the item: only such items have sampled tokens."""
    return item.get("role") in (None, "assistant") and not type_of(item).endswith("_output")


def _preambles(items: Sequence[Item]) -> list[bool]:
    """For each item, whether it is a message that the assistant wrote before a call.

    Its `phase` decides; if a client has removed that, whether a call follows.
    """
    preambles = []
    acts = False
    for item in reversed(items):
        kind = type_of(item)
        is_answer = kind == "message" and item.get("role") == "assistant"
        phase = item.get("phase")
        preambles.append(is_answer and (acts if phase is None else phase == "commentary"))
        if kind.endswith("_call") and kind not in IGNORED:
            acts = True
        elif not is_answer and kind != "reasoning":
            acts = False
    return preambles[::-1]


def _thought(item: Item) -> str:
    """The chain of thought of a reasoning item: its content, or its summary, which is the same text here."""
    for key in ("content", "summary"):
        parts = item.get(key)
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        )
        if text := "".join(each for each in texts if isinstance(each, str)):
            return text
    return ""


def _string(item: Item, key: str, path: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise bad_request(f"{path}.{key}: a {type_of(item)} needs it, as text", f"{path}.{key}")
    return value


TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "summary_text": "text",
}


UNSEEN = {
    "input_image": "[an image, which this model cannot see]",
    "input_file": "[a file, which this model cannot read]",
}
"""Notes that replace these parts in the result of a call, where the client often cannot avoid them."""


def _text(content: Any, where: str, unseen: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text of a message's content: its parts concatenated.

    unseen  type of a part → the note that replaces it; other parts that are not text are refused
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_request(f"{where}: it must be text, or a list of parts", where)
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise bad_request(f"{where}[{i}].type: it is missing", f"{where}[{i}].type")
        if kind in unseen:
            texts.append(unseen[kind])
            continue
        if kind not in TEXTS:
            raise unsupported(
                f"{where}[{i}]: this model reads text, not {kind[:100]!r}", f"{where}[{i}].type"
            )
        text = part.get(TEXTS[kind])
        if not isinstance(text, str):
            raise bad_request(f"{where}[{i}].{TEXTS[kind]}: it is missing", f"{where}[{i}].{TEXTS[kind]}")
        texts.append(text)
    return "".join(texts)
