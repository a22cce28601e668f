"""`LLM`: the model in Python, without a server.

    from gptoss import LLM

    with LLM() as llm:                         # the bundled demo; or LLM("openai/gpt-oss-20b")
        print(llm.chat("What is the capital of France?", temperature=0).content)

The fields are those of POST /v1/chat/completions and /v1/completions, with the same meanings and checks.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from engine.request import Request, Token
from gptoss.assembly import Assembled, assemble
from gptoss.in_process import InProcessEngine
from gptoss.results import Answer, Completion, Usage, answer_of
from language.constraints import Constraints
from language.harmony.messages import Conversation
from language.harmony.reader import Delta
from language.harmony.render import Renderer
from model.config import ModelConfig
from server import settings_sources
from server.api.chat import ChatBody
from server.api.completions import CompletionBody
from server.dialogue.answer import AnswerReader
from server.dialogue.choices import TokenReader
from server.dialogue.continuation import TextReader
from server.dialogue.reasoning_cache import ReasoningCache
from server.dialogue.turn import Turn
from server.errors import ApiError
from server.settings import Settings

NOT_HERE = frozenset(
    ("model", "n", "best_of", "stream", "stream_options", "echo", "logprobs", "top_logprobs",
     "return_token_ids", "return_tokens_as_token_ids", "prompt_logprobs", "truncate_prompt_tokens")
)  # fmt: skip
"""Fields of the HTTP APIs that do not apply: they say how an answer is sent, or ask for several."""

B = TypeVar("B", bound=BaseModel)


class LLM:
    """A model in this process.  Not thread-safe.

    name       the model's name
    tokenizer  text ↔ token ids
    """

    def __init__(self, model: str | Path | None = None, **settings: Any):
        """Loads the model.

        model     a folder, or a name on the hub that was downloaded; None: the bundled demo
        settings  the settings of `gptoss serve`, with underscores: device="cpu", max_context=4096

        Raises TypeError for a setting that does not exist, SettingsError for a value that cannot be used, and
        StartError if the model cannot be loaded.
        """
        known = {each.name for each in fields(Settings)}
        _refuse_unknown(settings, known, "setting")
        texts = {name: _as_text(value) for name, value in settings.items() if value is not None}
        if model is not None:
            texts["model"] = str(model)
        self._set_up(settings_sources.read(texts, {}))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises StartError."""
        llm = cls.__new__(cls)
        llm._set_up(settings)
        return llm

    def _set_up(self, settings: Settings) -> None:
        self._assembled: Assembled | None = assemble(settings)
        self.name, self.tokenizer = self.assembled.model_id, self.assembled.tokenizer
        self.renderer = Renderer(self.tokenizer)
        self._settings = settings
        self._engine: InProcessEngine | None = InProcessEngine(self.assembled.engine)
        self._constraints: Constraints | None = None
        self._reasoning_cache = ReasoningCache(settings.reasoning_cache_memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and end all unfinished answers.  Safe to call twice."""
        if self._assembled is not None:
            self._assembled.close()
        self._engine = self._assembled = None

    @property
    def assembled(self) -> Assembled:
        """The engine, and what is known about the loaded model."""
        if self._assembled is None:
            raise RuntimeError("this LLM is closed")
        return self._assembled

    @property
    def config(self) -> ModelConfig:
        """The model's sizes."""
        return self.assembled.config

    # -- for users -----------------------------------------------------------------------------------------

    def chat(self, messages: str | Sequence[Mapping[str, Any]], **chat_fields: Any) -> Answer:
        """Answer a conversation.

        messages     as in the chat API, or the text of a single user message
        chat_fields  tools, tool_choice, response_format, reasoning_effort (or effort), temperature, seed,
                     max_tokens, thinking_token_budget, and the other fields of that API

        Raises ValueError for a body that the API would refuse, TypeError for a field that does not exist, and
        EngineError.
        """
        turn = self._turn(messages, chat_fields)
        reader, prompt = self._reader(turn), self.prompt_of(turn)
        news: list[Delta] = []
        with closing(self._steps(turn, prompt)) as steps:
            for tokens in steps:
                news += reader.feed(tokens)
                if reader.finish is not None:
                    break
        return answer_of(news, reader, len(prompt))

    def stream(self, messages: str | Sequence[Mapping[str, Any]], **chat_fields: Any) -> Iterator[Delta]:
        """The same answer as a stream: ReasoningDelta, ContentDelta, CallStart and CallDelta of
        language.harmony.reader.  Closing the iterator cancels the rest.
        """
        turn = self._turn(messages, chat_fields)  # raises now, not when the first delta is read
        return self._deltas(turn)

    def generate(
        self, prompts: str | Sequence[str | list[int]], **completion_fields: Any
    ) -> list[Completion]:
        """Continue each prompt; all are computed in one batch.

        prompts            raw text, in which names of special tokens become special tokens, or token ids
        completion_fields  max_tokens (16 by default), temperature, stop, seed, and the other fields of
                           /v1/completions

        Raises the same exceptions as `chat`.
        """
        known = CompletionBody.model_fields.keys() - NOT_HERE - {"prompt"}
        _refuse_unknown(completion_fields, known, "field")
        body = _checked(CompletionBody, {"prompt": "", **completion_fields})
        try:
            body.check()
            (same,) = body.turns(self.tokenizer)
        except ApiError as error:
            raise ValueError(error.message) from None
        given = [prompts] if isinstance(prompts, str) else prompts
        turns = [replace(same, prompt=prompt) for prompt in given]
        tokenised = [self.prompt_of(turn) for turn in turns]
        readers = [
            TextReader(turn, prompt, self.tokenizer) for turn, prompt in zip(turns, tokenised, strict=True)
        ]
        pieces: list[list[str]] = [[] for _ in turns]
        for place, token in self.run(turns):
            self._read(token, readers[place], pieces[place])
        return [
            Completion(
                "".join(text),
                reader.token_ids,
                Usage(len(prompt), len(reader.token_ids), reader.cached_tokens),
                str(reader.finish),
            )
            for text, reader, prompt in zip(pieces, readers, tokenised, strict=True)
        ]

    # -- for the commands ----------------------------------------------------------------------------------

    def answers(self, turns: Sequence[Turn]) -> list[Answer]:
        """The answers to conversations, computed in one batch, in their order.  Raises EngineError."""
        readers = [self._reader(turn) for turn in turns]
        news: list[list[Delta]] = [[] for _ in turns]
        for place, token in self.run(turns):
            self._read(token, readers[place], news[place])
        return [
            answer_of(deltas, reader, len(self.prompt_of(turn)))
            for deltas, reader, turn in zip(news, readers, turns, strict=True)
        ]

    def run(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Token]]:
        """The tokens of all turns in order of arrival, each with the index of its turn.

        Raises EngineError.
        """
        places: dict[str, int] = {}

        def requests() -> Iterator[Request]:
            for place, turn in enumerate(turns):
                request = self._request(turn, self.prompt_of(turn))
                places[request.id] = place
                yield request

        with closing(self._running.run(requests())) as steps:
            for tokens in steps:
                for token in tokens:
                    yield places[token.request_id], token

    def steps(self, turn: Turn) -> Generator[list[Token]]:
        """The tokens of one turn, step by step; empty while its prompt is computed.  Raises EngineError.

        Closing the iterator cancels the answer.
        """
        return self._steps(turn, self.prompt_of(turn))

    @property
    def reading(self) -> tuple[int, int] | None:
        """While a prompt is being computed: the tokens computed so far, and all its tokens."""
        return next(iter(self._running.engine.stats().reading.values()), None)

    def prompt_of(self, turn: Turn) -> list[int]:
        """The prompt's tokens.  Raises ConversationError."""
        match turn.prompt:
            case Conversation(messages=messages):
                calls = (call.id for message in messages for call in message.calls)
                replay = self._reasoning_cache.find("", calls)
                return self.renderer.render(turn.prompt, replay)
            case str():
                return self.tokenizer.encode_with_specials(turn.prompt) or [self.renderer.end_of_text]
        return list(turn.prompt)

    def today(self) -> str:
        """The current date in prompts."""
        return self._settings.date or date.today().isoformat()

    # -- details -------------------------------------------------------------------------------------------

    @property
    def _running(self) -> InProcessEngine:
        if self._engine is None:
            raise RuntimeError("this LLM is closed")
        return self._engine

    def _turn(self, messages: str | Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Turn:
        asked = dict(given)
        if "effort" in asked:
            asked["reasoning_effort"] = asked.pop("effort")
        _refuse_unknown(asked, ChatBody.model_fields.keys() - NOT_HERE - {"messages"}, "field")
        history = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        body = _checked(ChatBody, {"messages": history, **asked})
        try:
            turn = body.turn(self.today(), self.tokenizer)
            self.prompt_of(turn)  # may raise ConversationError, a ValueError
        except ApiError as error:
            raise ValueError(error.message) from None
        return turn

    def _read(self, token: Token, reader: TokenReader, news: list[Any]) -> None:
        ended = reader.finish is not None
        if not ended:
            reader.add(token, news)
            if reader.finish is not None:
                self._running.end(
                    token.request_id
                )  # it reached a stop string, which the engine does not know

    def _reader(self, turn: Turn) -> AnswerReader:
        return AnswerReader(turn, self.renderer, partial(self._reasoning_cache.keep, ""))

    def _deltas(self, turn: Turn) -> Iterator[Delta]:
        reader = self._reader(turn)
        with closing(self.steps(turn)) as steps:
            for tokens in steps:
                yield from reader.feed(tokens)
                if reader.finish is not None:
                    return

    def _steps(self, turn: Turn, prompt: list[int]) -> Generator[list[Token]]:
        return self._running.run([self._request(turn, prompt)])

    def _request(self, turn: Turn, prompt: list[int]) -> Request:
        """Raises SchemaError, which is a ValueError."""
        spec, constraint = turn.spec, None
        if spec is not None:
            spec = spec.with_default_budget(self._settings.thinking_budget)
        if spec is not None and (spec.constrains or spec.thinking_tokens is not None):
            if self._constraints is None:
                self._constraints = Constraints(self.tokenizer, self.tokenizer.end)
            if spec.thinking_tokens is not None:
                room = turn.max_answer(len(prompt), self.assembled.max_context)
                budget = self._constraints.thinking_tokens(spec.thinking_tokens, room)
                spec = replace(spec, thinking_tokens=budget)
            constraint = self._constraints.compile(replace(spec, begun=turn.begun(self.tokenizer)))
        timeout = self._settings.request_timeout or None
        (request,) = replace(turn, n=1).requests(
            uuid4().hex, prompt, constraint, self.renderer, self.assembled.max_context, timeout
        )
        return request


def _checked(kind: type[B], body: Mapping[str, Any]) -> B:
    """The validated body.  Raises ValueError with the name of the wrong field."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from None


def _refuse_unknown(given: Mapping[str, Any], known: Collection[str], what: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"there is no {what} {name!r}{hint}")


def _as_text(value: Any) -> str | list[str]:
    """A setting's value as the text that would follow its flag."""
    match value:
        case bool():
            return "on" if value else "off"
        case list() | tuple():
            return [str(each) for each in value]
    return str(value)
