"""A worker that follows a script, and a tokenizer whose tokens are bytes, to test HTTP without a model.

The script says what happens to each request: token ids, pauses, failures.  The server and the socket are
real, so tests can disconnect, read slowly, and get errors in the middle of a stream.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import httpx
import uvicorn

from engine.errors import ShuttingDown
from engine.request import Finish, Logprob, Prefill, Request, Token
from language.tokenizer import Tokenizer
from server.app import create_app
from server.front.protocol import BoundedProtocol
from server.settings import Settings
from tests.vocabularies import SPECIALS

FLAGS = ["single_word", "lstrip", "rstrip", "normalized"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def byte_tokenizer(folder) -> Tokenizer:
    """A tokenizer with the 256 bytes and harmony's special tokens.  A byte's id is (7 * byte + 11) % 256, so
    that mixing up bytes and ids is noticed.
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    alphabet = [chr(byte) if byte in itself else chr(next(others)) for byte in range(256)]
    added = [
        {"id": 256 + i, "content": name, "special": True, **dict.fromkeys(FLAGS, False)}
        for i, name in enumerate(SPECIALS)
    ]
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {c: (7 * byte + 11) % 256 for byte, c in enumerate(alphabet)},
            "merges": [],
        },
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(whole))
    return Tokenizer(path)


@dataclass
class Pause:
    seconds: float


@dataclass
class Reads:
    """For some seconds, `computed` of the prompt's `tokens` have been computed."""

    computed: int
    tokens: int
    seconds: float


Step = int | list[int] | Pause | Reads | Exception
"""A token, tokens that arrive together, a pause in seconds, the progress of a prompt, or a failure."""


class ScriptedStream:
    def __init__(self, worker: "ScriptedWorker", request: Request, steps: Iterable[Step]):
        self._worker, self._request = worker, request
        self._arrived: list[Token | Exception] = []
        self._news = asyncio.Event()
        self._sent = 0
        self.closed = 0
        self.reading: tuple[int, int] | None = None
        worker.open.add(self)
        self._task = asyncio.ensure_future(self._play(list(steps)))

    async def _play(self, steps: list[Step]) -> None:
        for i, step in enumerate(steps):
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            if isinstance(step, Reads):
                self.reading = (step.computed, step.tokens)
                await asyncio.sleep(step.seconds)
                continue
            self.reading = None
            if isinstance(step, Exception):
                self._arrived.append(step)
            else:
                ids = [step] if isinstance(step, int) else step
                for j, id in enumerate(ids):
                    is_last = i == len(steps) - 1 and j == len(ids) - 1
                    self._arrived.append(self._token(id, is_last))
                    if self._arrived[-1].finish:
                        self._news.set()
                        return
            self._news.set()
            await asyncio.sleep(0)

    def _token(self, id: int, is_last: bool) -> Token:
        request, self._sent = self._request, self._sent + 1
        finish = None
        if id in request.stop_tokens:
            finish = Finish.STOP
        elif is_last or self._sent == request.max_tokens:
            finish = Finish.LENGTH
        wanted = request.sampling.logprobs
        top = () if wanted is None else tuple(((id + i) % 256, -0.5 - i) for i in range(wanted))
        prefill = None
        if self._sent == 1:
            told = None
            if (k := request.prompt_logprobs) is not None:
                each = {id: Logprob(-0.25, ((id, -0.25),) * k) for id in set(request.prompt)}
                told = (None, *map(each.__getitem__, request.prompt[1:]))
            prefill = Prefill(
                cached_tokens=self._worker.cached_tokens, logprobs=told, computed_tokens=30, seconds=0.6
            )
        logprob = None if wanted is None else Logprob(-0.5, top)
        return Token(request.id, id, finish, logprob, prefill)

    def __aiter__(self):
        return self

    async def __anext__(self) -> list[Token]:
        while not self._arrived:
            if self.closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if isinstance(self._arrived[0], Exception):
            raise self._arrived.pop(0)
        failures = [i for i, each in enumerate(self._arrived) if isinstance(each, Exception)]
        cut = failures[0] if failures else len(self._arrived)
        tokens, self._arrived = self._arrived[:cut], self._arrived[cut:]
        return tokens

    def close(self) -> None:
        self.closed += 1
        self._worker.open.discard(self)
        self._task.cancel()
        self._news.set()


class ScriptedWorker:
    """Replaces engine.worker.Worker, with the same interface.

    script         request → what happens to it; an exception it raises is raised by `submit`
    cached_tokens  reported with every first token
    """

    def __init__(self) -> None:
        self.open: set[ScriptedStream] = set()
        self.died: BaseException | None = None
        self.draining = False
        self.longest_stretch = 0.0
        """Longest time, in processor seconds, that the event loop was busy with one thing since this was set
        to 0.
        """

    def reset(self, script: Callable[[Request], Iterable[Step]], cached_tokens: int = 0) -> None:
        assert self.wait_until_idle(), "a test left a stream open"
        self.script, self.cached_tokens = script, cached_tokens
        self.requests: list[Request] = []

    def start(self) -> None:
        self._beating = asyncio.ensure_future(self._beat())

    def stop(self) -> None:
        self._beating.cancel()

    async def _beat(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.01)
            self.longest_stretch = max(self.longest_stretch, time.thread_time() - began)

    async def drain(self, grace_seconds: float) -> None:
        self.draining = True
        for stream in list(self.open):
            stream.close()

    def submit(self, request: Request) -> ScriptedStream:
        if self.draining:
            raise ShuttingDown()
        try:
            return ScriptedStream(self, request, self.script(request))
        finally:
            self.requests.append(request)  # from now on the stream is open

    def wait_until_idle(self, seconds: float = 20.0) -> bool:
        """Wait until every stream is closed.  Returns whether that happened in time."""
        end = time.monotonic() + seconds
        while self.open and time.monotonic() < end:
            time.sleep(0.005)
        return not self.open


@contextmanager
def serving(app, protocol=BoundedProtocol, port=0):
    """A context with a real server for `app`, whose base URL it yields.  port 0: any free port"""
    config = uvicorn.Config(
        app, http=protocol, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(5)


class Live:
    """A real server with a scripted worker."""

    def __init__(self, tokenizer: Tokenizer, worker: ScriptedWorker, url: str, app):
        self.tokenizer, self.worker, self.url, self.app = tokenizer, worker, url, app
        self.http = httpx.Client(base_url=url, timeout=10)

    def openai(self, **more):
        from openai import OpenAI

        return OpenAI(base_url=self.url + "/v1", api_key="x", max_retries=0, timeout=10, **more)

    def said(self, text: str) -> list[int]:
        """The tokens of `text`, in which names of special tokens become special tokens."""
        return self.tokenizer.encode_with_specials(text)


@contextmanager
def live(
    tokenizer: Tokenizer, script, *, settings: Settings | None = None, max_context=4096, cached_tokens=0
):
    """A context with a server.

    script  what happens to each request, or a function of the request.  A text stands for its tokens

    A test with its own settings has its own server.  The others share one, because starting one takes as long
    as ten tests.
    """

    def steps(request: Request) -> Iterable[Step]:
        told = script(request) if callable(script) else script
        parts = [told] if isinstance(told, str) else told
        return [
            step
            for part in parts
            for step in (tokenizer.encode_with_specials(part) if isinstance(part, str) else [part])
        ]

    if settings is None and max_context == 4096:
        server = _shared(tokenizer)
        server.worker.reset(steps, cached_tokens)
        yield server
        return
    worker = ScriptedWorker()
    worker.reset(steps, cached_tokens)
    app = create_app(worker, tokenizer, settings or PLAIN_SETTINGS, "tiny", max_context, "fp_test")
    with serving(app) as url:
        yield Live(tokenizer, worker, url, app)


PLAIN_SETTINGS = Settings(date="2025-06-28")
_for_good = ExitStack()


@cache
def _shared(tokenizer: Tokenizer) -> Live:
    """The shared server, which ends with the process."""
    worker = ScriptedWorker()
    app = create_app(worker, tokenizer, PLAIN_SETTINGS, "tiny", 4096, "fp_test")
    return Live(tokenizer, worker, _for_good.enter_context(serving(app)), app)


def final(text: str, thought: str = "") -> str:
    """The harmony text of an answer, with or without a chain of thought."""
    return f"{_analysis(thought)}<|channel|>final<|message|>{text}<|return|>"


def call(name: str, arguments: str, thought: str = "") -> str:
    """The harmony text of a call."""
    header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    return f"{_analysis(thought)}{header}{arguments}<|call|>"


def _analysis(thought: str) -> str:
    return f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" if thought else ""


def prompt_text(live: Live) -> str:
    """The latest prompt as text, with special tokens by name."""
    return live.tokenizer.decode(live.worker.requests[-1].prompt)
