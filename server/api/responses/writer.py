"""Writes a response: deltas → items and events, exactly as OpenAI names them.

The same steps make the stream and the whole object: each event describes a change of the object.

    created · in_progress · (output_item.added · deltas · output_item.done)* · completed | incomplete | failed
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from engine.request import Logprob
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Delta, ReasoningDelta
from server.api.responses import actions
from server.api.responses.tools import Declared, Tools
from server.errors import ApiError

Event = dict[str, Any]

PHASES = {"commentary": "commentary", "final": "final_answer"}

UNFINISHED = ("queued", "in_progress")
"""The status of a response that has not ended."""

PREFIXES = {
    "reasoning": "rs",
    "message": "msg",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "local_shell_call": "lsh",
    "shell_call": "sh",
    "apply_patch_call": "apc",
}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


@dataclass(slots=True)
class _OpenItem:
    """The item that is being written.

    kind      kind of its deltas: a channel, "reasoning" or "call"
    declared  for a call: its tool, if the client has declared it
    """

    item: dict[str, Any]
    index: int
    kind: str
    declared: Declared | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class ResponseWriter:
    """
    response  the object so far
    summary   whether chains of thought are sent as summaries too
    seal      returns the encrypted chain of thought that has just ended; None if it is not wanted
    entry     a token → its entry in `logprobs`; None if they are not wanted
    """

    def __init__(
        self,
        response: dict[str, Any],
        tools: Tools,
        *,
        summary: bool = False,
        seal: Callable[[], str | None] | None = None,
        entry: Callable[[int, Logprob], dict[str, Any]] | None = None,
    ):
        self.response = response
        self._tools, self._summary, self._seal, self._entry = tools, summary, seal, entry
        self._open: _OpenItem | None = None
        self._sequence = 0

    def begin(self) -> list[Event]:
        return [self._response_event("response.created"), self._response_event("response.in_progress")]

    def queue(self) -> list[Event]:
        """Begins a background response."""
        self.response["status"] = "queued"
        return [self._response_event("response.created"), self._response_event("response.queued")]

    def start(self) -> list[Event]:
        """A queued response runs now."""
        self.response["status"] = "in_progress"
        return [self._response_event("response.in_progress")]

    def heartbeat(self) -> Event:
        """An event without news, so that the client sees activity.  Not after the end."""
        return self._response_event(f"response.{self.response['status']}")

    def add(
        self, news: Sequence[Delta], calls: Sequence[str], logprobs: Sequence[tuple[int, Logprob]] = ()
    ) -> list[Event]:
        """
        calls     ids of the calls so far
        logprobs  of the visible tokens among the news
        """
        events: list[Event] = []
        for delta in news:
            match delta:
                case ReasoningDelta(text):
                    events += self._switch_to("reasoning")
                    events += self._reasoning_delta(text)
                case ContentDelta(text, channel):
                    events += self._switch_to(channel)
                    entries = [self._entry(*each) for each in logprobs] if self._entry else []
                    events += self._text_delta(text, entries)
                    logprobs = ()
                case CallStart(index, name, namespace):
                    events += self._close("completed")
                    events += self._call(calls[index], name, namespace)
                case CallDelta(_, arguments):
                    events += self._arguments_delta(arguments)
        return events

    def end(self, finish: str, usage: dict[str, Any]) -> list[Event]:
        """The last events.

        finish  the finish reason, as in chat completions
        """
        response = self.response
        complete = finish in ("stop", "tool_calls")
        events = self._close("completed" if complete else "incomplete")
        if complete and not any(item["type"] != "reasoning" for item in response["output"]):
            events += self._switch_to("final")  # an empty answer is an empty message
            events += self._close("completed")
        response["status"] = "completed" if complete else "incomplete"
        if complete:
            response["completed_at"] = int(time.time())
        else:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response["usage"] = usage
        return [*events, self._response_event(f"response.{response['status']}")]

    def fail(self, error: ApiError) -> Event:
        """The last event of a response that failed."""
        self._close_silently()
        self.response["status"] = "failed"
        self.response["error"] = {"code": failure_code(error), "message": error.message}
        return self._response_event("response.failed")

    def cancel(self) -> Event:
        """The last event of a cancelled response, `failed`: OpenAI has no event for cancellation."""
        self._close_silently()
        self.response["status"] = "cancelled"
        return self._response_event("response.failed")

    # -- events ----------------------------------------------------------------------------------------------

    def _event(self, type: str, **fields: Any) -> Event:
        event = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _response_event(self, type: str) -> Event:
        return self._event(type, response=dict(self.response, output=list(self.response["output"])))

    def _of(self, type: str, **fields: Any) -> Event:
        """An event about the open item."""
        open = self._current
        return self._event(type, item_id=open.item["id"], output_index=open.index, **fields)

    @property
    def _current(self) -> _OpenItem:
        assert self._open is not None
        return self._open

    # -- items -----------------------------------------------------------------------------------------------

    def _start(self, kind: str, item: dict[str, Any], declared: Declared | None = None) -> Event:
        index = len(self.response["output"])
        item = {"id": new_id(PREFIXES[item["type"]]), **item}
        self.response["output"].append(item)
        self._open = _OpenItem(item, index, kind, declared)
        return self._event("response.output_item.added", output_index=index, item=dict(item))

    def _switch_to(self, kind: str) -> Iterator[Event]:
        """Ends the open item, unless it is of this kind, and begins one that is."""
        if self._open is not None and self._open.kind == kind:
            return
        yield from self._close("completed")
        if kind == "reasoning":
            item: dict[str, Any] = {"type": "reasoning", "summary": [], "content": []}
            yield self._start(kind, {**item, "encrypted_content": None, "status": "in_progress"})
            yield self._of("response.content_part.added", content_index=0, part=_thought(""))
            if self._summary:
                part = {"type": "summary_text", "text": ""}
                yield self._of("response.reasoning_summary_part.added", summary_index=0, part=part)
            return
        item = {"type": "message", "role": "assistant", "phase": PHASES[kind], "status": "in_progress"}
        yield self._start(kind, {**item, "content": []})
        yield self._of("response.content_part.added", content_index=0, part=_text("", []))

    def _reasoning_delta(self, text: str) -> Iterator[Event]:
        self._current.text.append(text)
        yield self._of("response.reasoning_text.delta", content_index=0, delta=text)
        if self._summary:
            yield self._of("response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def _text_delta(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        self._current.text.append(text)
        self._current.logprobs += logprobs
        yield self._of("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _call(self, id: str, name: str, namespace: str | None) -> Iterator[Event]:
        declared = self._tools.find(name, namespace)
        kind = declared.item if declared else "function_call"
        item: dict[str, Any] = {"type": kind, "status": "in_progress", "call_id": id}
        if kind in ("function_call", "custom_tool_call"):
            item |= {"name": name, "arguments" if kind == "function_call" else "input": ""}
            if namespace is not None:
                item["namespace"] = namespace
        else:
            item |= actions.fields(kind, "")
        yield self._start("call", item, declared)
        if declared and declared.wrap is not None:
            yield from self._call_delta(actions.opening(declared.wrap))

    def _arguments_delta(self, arguments: str) -> Iterator[Event]:
        declared = self._current.declared
        wrapped = declared is not None and declared.wrap is not None
        yield from self._call_delta(actions.escaped(arguments) if wrapped else arguments)

    def _call_delta(self, text: str) -> Iterator[Event]:
        """The event of a piece of a call's arguments or input; no event for calls with items of their own."""
        self._current.text.append(text)
        match self._current.item["type"]:
            case "function_call":
                yield self._of("response.function_call_arguments.delta", delta=text)
            case "custom_tool_call":
                yield self._of("response.custom_tool_call_input.delta", delta=text)

    def _close(self, status: str) -> list[Event]:
        """Ends the open item, if there is one."""
        if self._open is None:
            return []
        events = list(self._closing(status))
        self._open = None
        return events

    def _close_silently(self) -> None:
        sequence = self._sequence
        self._close("incomplete")
        self._sequence = sequence

    def _closing(self, status: str) -> Iterator[Event]:
        now = self._current
        if now.declared and now.declared.wrap is not None and status == "completed":
            yield from self._call_delta(actions.CLOSING)
        item, text = now.item, "".join(now.text)
        match item["type"]:
            case "reasoning":
                yield self._of("response.reasoning_text.done", content_index=0, text=text)
                yield self._of("response.content_part.done", content_index=0, part=_thought(text))
                item["content"] = [_thought(text)]
                if self._summary:
                    part = {"type": "summary_text", "text": text}
                    yield self._of("response.reasoning_summary_text.done", summary_index=0, text=text)
                    yield self._of("response.reasoning_summary_part.done", summary_index=0, part=part)
                    item["summary"] = [part]
                if self._seal is not None:
                    item["encrypted_content"] = self._seal()
            case "message":
                part = _text(text, now.logprobs)
                yield self._of("response.output_text.done", content_index=0, text=text, logprobs=now.logprobs)
                yield self._of("response.content_part.done", content_index=0, part=part)
                item["content"] = [part]
            case "function_call":
                item["arguments"] = text
                yield self._of("response.function_call_arguments.done", arguments=text, name=item["name"])
            case "custom_tool_call":
                item["input"] = text
                yield self._of("response.custom_tool_call_input.done", input=text)
            case kind:
                item |= actions.fields(kind, text)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=now.index, item=dict(item))


def failure_code(error: ApiError) -> str:
    """The error's code, as one of those that OpenAI's clients know."""
    if error.code in ("context_length_exceeded", "rate_limit_exceeded"):
        return str(error.code)
    return "invalid_prompt" if error.status < 500 else "server_error"


def _thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _text(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
