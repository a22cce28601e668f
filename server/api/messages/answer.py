"""The response to a Messages request: content blocks → events, or content blocks → one object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from server.api.messages import errors
from server.api.messages.blocks import Blocks, Gathered, Kind, Piece, Start, Step, Stop
from server.dialogue.answer import AnswerReader
from server.dialogue.begin import Begun
from server.dialogue.choices import Choice, in_order_of_arrival
from server.errors import ApiError
from server.logs import Figures
from server.service import Service
from server.sse import event, quote

if TYPE_CHECKING:
    from engine.worker import TokenStream

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

DELTAS: dict[Kind, str] = {
    "thinking": "thinking_delta",
    "text": "text_delta",
    "signature": "signature_delta",
    "partial_json": "input_json_delta",
}


class MessagesAnswer:
    """The answer to one request.

    owner        whose key can open its signatures
    declared     names of the tools that the client has
    prompt_only  the answer is empty, because only the prompt should be computed
    """

    end = b""

    def __init__(
        self,
        id: str,
        begun: Begun,
        service: Service,
        figures: Figures,
        *,
        request_id: str,
        owner: bytes,
        declared: Collection[str],
        shows_thinking: bool,
        prompt_only: bool,
    ):
        self.streams: Sequence[TokenStream] = begun.streams
        self.figures = figures
        self._prompt_tokens = len(begun.prompt)
        self._request_id, self._prompt_only = request_id, prompt_only
        keep = partial(service.reasoning_cache.keep, begun.caller)
        self._reader = AnswerReader(begun.turn, service.renderer, keep)
        self._choice = Choice(0, begun.streams[0], self._reader, figures, service.metrics)
        self._blocks = Blocks(
            self._reader, lambda tokens: service.seal.close(tokens, owner), shows_thinking, declared
        )
        self._gathered = Gathered()
        self._message: dict[str, Any] = {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": service.model_id,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    async def events(self) -> AsyncIterator[bytes]:
        yield _event("message_start", message={**self._message, "usage": self._usage()})
        async for steps in self._steps():
            if steps:
                yield b"".join(map(_step_event, steps))
        yield _event("message_delta", delta=self._stopped(), usage=self._usage())
        yield _event("message_stop")

    async def gather(self) -> None:
        async for steps in self._steps():
            self._gathered.add(steps)

    def whole(self) -> dict[str, Any]:
        content = self._gathered.blocks
        return {**self._message, "content": content, **self._stopped(), "usage": self._usage()}

    def ping(self) -> bytes:
        return _event("ping")

    def failure(self, error: ApiError) -> bytes:
        return event(errors.body(error, self._request_id), "error")

    async def _steps(self) -> AsyncIterator[list[Step]]:
        async for choice, tokens in in_order_of_arrival([self._choice]):
            deltas = choice.feed(tokens)
            if not self._prompt_only:
                yield self._blocks.steps(deltas)
        yield self._blocks.end()

    def _stopped(self) -> dict[str, Any]:
        found = self._reader.stop_string
        reason = "stop_sequence" if found is not None else STOP_REASONS[self._reader.finish or "length"]
        if self._prompt_only:
            reason = "max_tokens"
        return {"stop_reason": reason, "stop_sequence": found}

    def _usage(self) -> dict[str, Any]:
        """The prompt is the sum of its computed tokens (input_tokens) and its cached ones."""
        reader = self._reader
        return {
            "input_tokens": self._prompt_tokens - reader.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": reader.cached_tokens,
            "output_tokens": 0 if self._prompt_only else len(reader.token_ids),
            "output_tokens_details": {"thinking_tokens": reader.reasoning_tokens},
        }


def _event(type: str, **fields: Any) -> bytes:
    return event({"type": type, **fields}, type)


def _step_event(step: Step) -> bytes:
    match step:
        case Start(index, block):
            return _event("content_block_start", index=index, content_block=block)
        case Stop(index):
            return _event("content_block_stop", index=index)
        case Piece(index, kind, text):
            head = (
                f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},"delta":'
            )
            return f'{head}{{"type":"{DELTAS[kind]}","{kind}":{quote(text)}}}}}\n\n'.encode()
