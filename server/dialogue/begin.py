"""Begins a turn: renders, constrains and submits it, or refuses it before a byte is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from engine.errors import DeadlineExceeded, PromptTooLong
from engine.request import Request
from language.constraints import AnswerConstraint
from language.harmony.messages import Conversation, Message
from language.tokenizer import Tokenizer
from server.dialogue.turn import Turn
from server.errors import ApiError, as_api_error, bad_request
from server.service import Service

if TYPE_CHECKING:
    from engine.worker import TokenStream

P = ParamSpec("P")
T = TypeVar("T")

LONG_TEXT = 16 * 2**10
"""Characters; a longer text is tokenised on another thread, so that other streams are not delayed."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A running turn.  The owner must close the streams.

    prompt   token ids
    streams  one for each answer
    caller   id of the caller
    """

    turn: Turn
    prompt: list[int]
    streams: list[TokenStream]
    caller: str


async def begin(turn: Turn, id: str, service: Service, caller: str = "") -> Begun:
    """Raises ApiError, ConversationError, SchemaError or EngineError; then nothing was submitted.

    caller  id of the caller, for fair queueing and for what is kept under the ids of its calls
    """
    (begun,) = await begin_all([turn], id, service, caller)
    return begun


async def begin_all(turns: Sequence[Turn], id: str, service: Service, caller: str = "") -> list[Begun]:
    """Begin all turns, or none.  Raises the same exceptions as `begin`."""
    check_number(sum(turn.n for turn in turns), service)
    if service.settings.prefix_cache_per_key:
        turns = [replace(turn, cache_salt=f"{caller}/{turn.cache_salt}") for turn in turns]
    prompts = [await tokens_of(turn, service, caller) for turn in turns]
    requests: list[list[Request]] = []
    for i, (turn, prompt) in enumerate(zip(turns, prompts, strict=True)):
        if turn.max_prompt is not None and len(prompt) > turn.max_prompt:
            raise _would_be_cut(len(prompt), turn.max_prompt)
        constraint = await constrain(turn, len(prompt), service)
        name = id if len(turns) == 1 else f"{id}-{i}"
        made = partial(
            turn.requests, name, prompt, constraint, service.renderer, service.max_context, group=id
        )
        requests.append(await preprocess(len(prompt), made, service, service.timeout_seconds, caller))
    streams = iter(_submit([each for of_turn in requests for each in of_turn], turns[0], service))
    return [
        Begun(turn, prompt, [next(streams) for _ in of_turn], caller)
        for turn, prompt, of_turn in zip(turns, prompts, requests, strict=True)
    ]


def check_number(answers: int, service: Service) -> None:
    """Raises ApiError if a request asks for more answers than the queue holds; called before any work."""
    limit = service.settings.max_queued
    if answers > limit:
        raise bad_request(f"{answers} answers at once; at most {limit} can wait here", "n")


async def tokens_of(turn: Turn, service: Service, caller: str) -> list[int]:
    """The prompt's tokens.  Raises ApiError or ConversationError."""
    match turn.prompt:
        case Conversation():
            return await render(turn.prompt, service, caller)
        case str():
            return await raw_tokens(turn.prompt, service)
    ids = turn.prompt
    if len(ids) >= service.max_context:
        raise _context_exceeded(PromptTooLong(len(ids), service.max_context - 1), turn, service.max_context)
    unknown = await preprocess(len(ids), first_unknown, service, ids, service.tokenizer)
    if unknown is not None:
        raise bad_request(f"{turn.param}: {unknown} is not the id of a token", turn.param)
    return list(ids)


async def render(conversation: Conversation, service: Service, caller: str) -> list[int]:
    """The prompt of a conversation.  Raises ConversationError, and QueueFull if too many long texts wait."""
    messages = conversation.messages
    replay = service.reasoning_cache.find(caller, (call.id for message in messages for call in message.calls))
    length = sum(map(_length, messages))
    return await preprocess(length, service.renderer.render, service, conversation, replay)


def _length(message: Message) -> int:
    """Characters, and tokens that were sampled."""
    arguments = sum(len(call.arguments) for call in message.calls)
    return len(message.content or "") + len(message.reasoning or "") + arguments + len(message.sampled)


async def raw_tokens(text: str, service: Service) -> list[int]:
    """The tokens of raw text, in which names of special tokens become special tokens.  Empty text becomes
    the token that begins a document.  Raises QueueFull.
    """
    if not text:
        return [service.renderer.end_of_text]
    return await preprocess(len(text), service.tokenizer.encode_with_specials, service, text)


async def preprocess(
    length: int, function: Callable[P, T], service: Service, *args: P.args, **kwargs: P.kwargs
) -> T:
    """The function's result.  It runs on the preprocessing pool if the request, or `length` of its text, is
    large; otherwise at once, because a thread would cost more.
    """
    if service.preprocessing.holds_slot or length > LONG_TEXT:
        return await service.preprocessing.run(function, *args, **kwargs)
    return function(*args, **kwargs)


@asynccontextmanager
async def slot_if_large(size: int, service: Service, caller: str) -> AsyncIterator[None]:
    """Holds a slot of the preprocessing pool if what the request refers to (`size` bytes) is large.

    Raises QueueFull.
    """
    pool = service.preprocessing
    if pool.holds_slot or size <= LONG_TEXT:
        yield
        return
    async with pool.slot(caller):
        with pool.slot_held():
            yield


def first_unknown(ids: Sequence[int], tokenizer: Tokenizer) -> int | None:
    return next((id for id in ids if not tokenizer.known(id)), None)


async def constrain(turn: Turn, prompt_tokens: int, service: Service) -> AnswerConstraint | None:
    """The constraint that makes the answer meet the turn's demands; None if there are none.

    Raises SchemaError, and QueueFull or DeadlineExceeded, because a new schema may have to wait.
    """
    spec = turn.spec
    if spec is None:
        return None
    spec = spec.with_default_budget(service.settings.thinking_budget)
    if spec.thinking_tokens is not None:
        room = turn.max_answer(prompt_tokens, service.max_context)
        spec = replace(spec, thinking_tokens=service.constraints.thinking_tokens(spec.thinking_tokens, room))
    if not spec.constrains and spec.thinking_tokens is None:
        return None
    if isinstance(turn.prompt, Conversation) and (length := len(turn.prompt.prefill.content)):
        spec = replace(spec, begun=await preprocess(length, turn.begun, service, service.tokenizer))
    try:
        async with asyncio.timeout(service.timeout_seconds):
            return await service.compilers.compile(spec, large=service.preprocessing.holds_slot)
    except TimeoutError:
        raise DeadlineExceeded(service.settings.request_timeout) from None


def _submit(requests: Sequence[Request], turn: Turn, service: Service) -> list[TokenStream]:
    """Submit all requests, or none.  Raises ApiError or EngineError."""
    streams: list[TokenStream] = []
    try:
        for request in requests:
            streams.append(service.worker.submit(request))
    except BaseException as error:
        for stream in streams:
            stream.close()
        if isinstance(error, PromptTooLong):
            raise _context_exceeded(error, turn, service.max_context) from error
        raise
    return streams


def _would_be_cut(tokens: int, limit: int) -> ApiError:
    param = "truncate_prompt_tokens"
    message = (
        f"{param}: the prompt has {tokens} tokens, and would be cut to {limit}; nothing is ever cut here"
    )
    return bad_request(f"{message}: shorten it, or leave {param} out", param)


def _context_exceeded(error: PromptTooLong, turn: Turn, max_context: int) -> ApiError:
    """The error in OpenAI's wording, by which LiteLLM, pi and others recognise it.

    LangChain looks for the code, but of the error that openai-python raises it sees only the message.
    """
    answer = turn.max_tokens or 1
    asked = f"{error.tokens + answer} tokens ({error.tokens} in the messages, {answer} in the completion)"
    refusal = as_api_error(error)
    refusal.message = (
        f"This model's maximum context length is {max_context} tokens. However, you requested {asked}."
        " Please reduce the length of the messages or completion. (context_length_exceeded)"
    )
    refusal.param = turn.param
    return refusal
