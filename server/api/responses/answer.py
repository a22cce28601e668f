"""The answer to one request: tokens → deltas → items and events; stores the response."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.request import Logprob, Token
from server.api.logprobs import chat_entry, prompt_entries
from server.api.responses.tools import Tools
from server.api.responses.writer import UNFINISHED, Event, ResponseWriter
from server.api.shared_fields import View
from server.dialogue.answer import AnswerReader
from server.dialogue.begin import Begun
from server.dialogue.choices import Choice, in_order_of_arrival
from server.dialogue.records import Group, Item, StoredItem
from server.errors import ApiError
from server.logs import Figures
from server.service import Service
from server.sse import event
from server.streaming import PING, SMALL_ANSWER

if TYPE_CHECKING:
    from engine.worker import TokenStream

log = logging.getLogger("gptoss.server")

HEARTBEAT_SECONDS = 8.0
"""A ping is an event only if no other event was sent for this long; otherwise it is a comment."""


class ResponseAnswer:
    """
    owner    of the response, from the API key
    head     the response before its first item
    items    the request's items, as they are stored; None: neither the response nor its calls' reasoning is
             stored
    running  id → running answers that clients can find; None: this one cannot be found
    """

    end = b""

    def __init__(
        self,
        head: dict[str, Any],
        begun: Begun,
        tools: Tools,
        owner: bytes,
        service: Service,
        figures: Figures,
        *,
        items: Sequence[StoredItem] | None,
        running: MutableMapping[str, ResponseAnswer] | None = None,
        summary: bool,
        seals: bool,
        view: View,
    ):
        self.streams: Sequence[TokenStream] = begun.streams
        self.figures = figures
        self.owner = owner
        self._service, self._items, self._running, self._view = service, items, running, view
        self._prompt = begun.prompt
        if view.token_ids:  # all keys from the beginning: a thread may be writing the response when it ends
            head |= {"prompt_token_ids": None, "token_ids": None}
        keep = None if items is None else partial(service.reasoning_cache.keep, begun.caller)
        self._reader = AnswerReader(begun.turn, service.renderer, keep)
        self._choice = Choice(0, begun.streams[0], self._reader, figures, service.metrics)
        self.writer = ResponseWriter(
            head,
            tools,
            summary=summary,
            seal=self._sealed if seals else None,
            entry=self._entry if view.logprobs else None,
        )
        self._last_event_at = 0.0
        self._seals = 0
        self._saving: asyncio.Future[None] | None = None

    @property
    def response(self) -> dict[str, Any]:
        return self.writer.response

    async def events(self) -> AsyncIterator[bytes]:
        async for batch in self.batches():
            yield encoded(batch)

    @property
    def idle(self) -> bool:
        """Whether no event was sent for HEARTBEAT_SECONDS.  Not after the end: while the response is stored,
        its last event is numbered already, and no other may come before it.
        """
        silent = time.monotonic() - self._last_event_at >= HEARTBEAT_SECONDS
        return silent and self.response["status"] in UNFINISHED

    async def batches(self, background: bool = False) -> AsyncIterator[list[Event]]:
        """All events, in one list for all tokens that arrived together.

        background  the response has the status `queued` until its first token
        """
        if self._running is not None:
            self._running[self.response["id"]] = self
        try:
            yield self._sent(self.writer.queue() if background else self.writer.begin())
            async for _, tokens in in_order_of_arrival([self._choice]):
                events = self.writer.start() if background and self.response["status"] == "queued" else []
                events += self._read(tokens)
                if self._choice.finish is not None:
                    if self._view.token_ids:
                        ids = {"prompt_token_ids": self._prompt, "token_ids": self._reader.token_ids}
                        self.response.update(ids)
                    events += self.writer.end(self._choice.finish, self.usage())
                    # Before the last event: the client may continue this response at another server.
                    await self.save()
                    self._unregister()
                if events:
                    yield self._sent(events)
        finally:
            self._unregister()

    async def gather(self) -> None:
        async for _ in self.batches():
            pass

    def whole(self) -> dict[str, Any]:
        if not self._view.prompt_logprobs:
            return self.response
        told = prompt_entries(self._service.tokenizer, self._prompt, self._reader.prompt_logprobs)
        return {**self.response, "prompt_logprobs": told}

    def ping(self) -> bytes:
        """An event if none was sent for a while, because some clients do not count comments as activity."""
        return encoded(self.heartbeat()) if self.idle else PING

    def heartbeat(self) -> list[Event]:
        return self._sent([self.writer.heartbeat()])

    def failure(self, error: ApiError) -> bytes:
        failed = self.writer.fail(error)
        self.save()
        return encoded([failed])

    def usage(self) -> dict[str, Any]:
        reader = self._reader
        return {
            "input_tokens": len(self._prompt),
            "input_tokens_details": {"cached_tokens": reader.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": len(reader.token_ids),
            "output_tokens_details": {"reasoning_tokens": reader.reasoning_tokens},
            "total_tokens": len(self._prompt) + len(reader.token_ids),
        }

    def _sent(self, events: list[Event]) -> list[Event]:
        self._last_event_at = time.monotonic()
        return events

    def _read(self, tokens: Sequence[Token]) -> list[Event]:
        if not self._view.logprobs:
            return self.writer.add(self._choice.feed(tokens), self._reader.calls)
        events: list[Event] = []
        for token in tokens:  # one by one, so that a token's log-probabilities are in the event with its text
            if self._choice.finish is None:
                news = self._choice.feed([token])
                events += self.writer.add(news, self._reader.calls, self._reader.new_logprobs())
        return events

    def _entry(self, id: int, logprob: Logprob) -> dict[str, Any]:
        return chat_entry(self._service.tokenizer, id, logprob, self._view.ids_as_tokens)

    def _sealed(self) -> str | None:
        """The next complete chain of thought, encrypted; None if it was cut and never will be complete.

        They are counted, because the tokens after a chain of thought may have arrived together with its own.
        """
        thoughts = self._reader.thoughts
        if self._seals == len(thoughts):
            return None
        self._seals += 1
        return self._service.seal.close(thoughts[self._seals - 1], self.owner)

    async def forget(self) -> None:
        """Do not store this response from now on: it was deleted while it was running.

        Afterwards it is stored only if it was before.
        """
        self._items = None
        self._unregister()
        if self._saving is not None:
            await asyncio.wait({self._saving})

    def _unregister(self) -> None:
        if self._running is not None:
            self._running.pop(self.response["id"], None)

    def save(self) -> asyncio.Future[None]:
        """Stores the response in its current state, if it should be stored.  Can be awaited."""
        if self._items is None:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        body = dict(self.response)
        output = body.pop("output")
        group = Group(body["id"], "response", body["status"], body["previous_response_id"], body)
        kept = list(self._items)
        kept += [
            StoredItem(item, tokens, "output")
            for item, tokens in zip(output, self._sampled(output), strict=True)
        ]
        large = len(self._prompt) + len(self._reader.token_ids) > SMALL_ANSWER
        self._saving = self._service.store.save(partial(self._keep, group, kept), large=large)
        return self._saving

    def _keep(self, group: Group, kept: Sequence[StoredItem]) -> None:
        fits = self._service.store.put(self.owner, group, kept)
        conversation = group.body["conversation"]
        if conversation is not None and group.status in ("completed", "incomplete"):
            fits &= self._service.store.add(self.owner, conversation["id"], kept)
        if not fits:
            log.warning(
                "a response is not stored completely: --store-size is too small for it or its conversation"
            )

    def _sampled(self, output: Sequence[Item]) -> list[list[int]]:
        """The sampled tokens of each item; none where they cannot be assigned to one item."""
        sampled: list[list[int]] = [[] for _ in output]
        parts = self._service.renderer.sampled_parts(self._reader.token_ids)
        at = 0
        for i, item in enumerate(output):
            while at < len(parts) and parts[at].kind == _kind(item):
                sampled[i] += parts[at].tokens
                at += 1
                if _kind(item) == "call":
                    break
        return sampled


def _kind(item: Item) -> str:
    match item["type"]:
        case "reasoning":
            return "analysis"
        case "message":
            return "commentary" if item.get("phase") == "commentary" else "final"
    return "call"


def encoded(events: Sequence[Event]) -> bytes:
    return b"".join(event(each, each["type"]) for each in events)
