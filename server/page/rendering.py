"""Runs the process that renders Markdown: starts it when it is first needed, kills it when it takes too long.

Texts are rendered one after the other, on a thread that waits for the process.  Every wait ends: the thread's
at a deadline, those in the queue at the deadlines of the requests before them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from server.errors import ApiError
from server.page.renderer import LENGTH, frame

log = logging.getLogger("gptoss.server")

SECONDS = 15.0
"""Time for the texts of one request, including the start of the process."""

MAX_WAITING = 16
"""Maximum requests running or waiting; more are refused."""


class _Failed(Exception):
    """The process took too long, or died."""


class Rendering:
    """`render` on the event loop; `close` ends the process."""

    def __init__(self, seconds: float = SECONDS):
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None  # used only by the thread, except for `kill`
        self._thread = ThreadPoolExecutor(1, "markdown")
        self._waiting = 0

    async def render(self, texts: Sequence[str]) -> list[dict[str, Any] | None]:
        """The result of `server.page.renderer.rendered` for each text; all None if rendering takes too long.

        Raises ApiError, 429, if too many wait.
        """
        if self._waiting >= MAX_WAITING:
            busy = "too many texts wait to be rendered"
            raise ApiError(429, busy, code="rate_limit_exceeded", headers={"retry-after": "1"})
        self._waiting += 1
        asked = frame(list(texts))
        exchange = asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, asked)
        exchange.add_done_callback(
            self._done
        )  # not when the client disconnects, which does not end the exchange
        try:
            return await asyncio.shield(exchange)
        except _Failed as error:
            log.warning("%d texts could not be rendered as Markdown: %s", len(texts), error)
            return [None] * len(texts)

    def close(self) -> None:
        """End the process, if there is one, and the thread."""
        if (process := self._process) is not None:
            process.kill()  # so that the thread stops waiting for it
        self._thread.submit(self._end)
        self._thread.shutdown()

    def _done(self, exchange: asyncio.Future[list[dict[str, Any] | None]]) -> None:
        self._waiting -= 1
        if not exchange.cancelled():
            exchange.exception()  # retrieve it, also if the client has disconnected

    # On the thread

    def _exchange(self, asked: bytes) -> list[dict[str, Any] | None]:
        deadline = time.monotonic() + self._seconds
        try:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            _write(process.stdin, asked, deadline)
            length = LENGTH.unpack(_read(process.stdout, LENGTH.size, deadline))[0]
            answer: list[dict[str, Any] | None] = json.loads(_read(process.stdout, length, deadline))
        except (_Failed, OSError) as error:
            self._end()
            raise _Failed(str(error)) from error
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                # -P: files of this folder must not be imported by their short names
                [sys.executable, "-P", str(Path(__file__).with_name("renderer.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C must reach only the server, which stops this process
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        process.wait()


def _write(pipe: IO[bytes], data: bytes, deadline: float) -> None:
    while data:
        _wait(pipe, selectors.EVENT_WRITE, deadline)
        data = data[os.write(pipe.fileno(), data) :]


def _read(pipe: IO[bytes], size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        _wait(pipe, selectors.EVENT_READ, deadline)
        part = os.read(pipe.fileno(), size - len(data))
        if not part:
            raise _Failed("the renderer ended")
        data += part
    return data


def _wait(pipe: IO[bytes], event: int, deadline: float) -> None:
    """Wait until the pipe is ready.  Raises _Failed."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise _Failed("it took too long")
