"""`gptoss serve`: runs the application on a port until it is told to stop.

SIGTERM, SIGINT   refuse new requests (503), give running answers `--grace` seconds, end the rest, exit 0
a second signal   the system ends the process at once, whatever its threads are doing
engine dies       every stream ends with an error, then exit 70, so that a supervisor restarts the server
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from engine.worker import Worker
from gptoss.application import application
from gptoss.standard_streams import say
from gptoss.start import StartError
from server.front.protocol import BoundedProtocol
from server.settings import Settings

log = logging.getLogger("gptoss.server")

KEEP_ALIVE_SECONDS = 75
"""Longer than proxies and clients keep an idle connection, so that they close it and not the server."""

FLUSH_SECONDS = 5
"""Time for the last bytes to reach slow clients, after all answers have ended."""

STOPPED, DIED = 0, 70

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the GIL while others wait for it.  While a thread parses a large body, Python's
5 ms would be added to each system call of the event loop and to each step of the engine."""

OTHER_DESCRIPTORS = 200
"""File descriptors for weights, pipes and libraries, beside those of connections."""


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code.  Raises StartError or SettingsError."""
    settings.api_keys()  # a bad key file is found before the model is loaded, as is a taken port
    listener = bind(settings.host, settings.port)
    made = application(settings)
    others = made.assembled.others
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    connections = possible_connections(settings.max_connections)
    # These objects stay until the end.  Once frozen, they are not examined by full garbage collections, which
    # would stop all threads for 0.1 s each time.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    banner = f"{made.assembled.summary}\nlistening on {url}"
    try:
        Server(made.app, made.worker, settings.grace, connections, url, banner).run(sockets=[listener])
    finally:
        if others is not None:
            others.close()
    code = STOPPED if made.worker.died is None else DIED
    if others is not None:
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """End the process without clean-up: the engine's thread, or torch's clean-up, may wait for ranks that
    have ended.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


class Server(uvicorn.Server):
    """uvicorn with another shutdown: by itself it would not let running answers finish."""

    def __init__(
        self,
        app: FastAPI,
        worker: Worker,
        grace_seconds: float,
        max_connections: int,
        url: str,
        banner: str,
    ):
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            http=partial(BoundedProtocol, max_connections=max_connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=FLUSH_SECONDS,
        )
        super().__init__(config)
        self._worker, self._grace_seconds = worker, grace_seconds
        self._url, self._banner = url, banner
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await super().startup(sockets)
        except OSError as error:
            raise StartError(f"cannot listen on {self._url}: {error.strerror}") from error
        if self.started:
            say(self._banner)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            # The default action: a Python handler would wait until this thread runs Python code again.
            signal.signal(each, signal.SIG_DFL)
        self._loop.call_soon_threadsafe(self._begin_shutdown, signal.Signals(sig).name)

    def _begin_shutdown(self, name: str) -> None:
        if self._draining is None:
            seconds = f"{self._grace_seconds:g} s"
            log.info(
                "%s: new requests are refused; running ones have %s; a second signal stops at once",
                name,
                seconds,
            )
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._worker.drain(self._grace_seconds)
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._worker.died is not None:
            self.should_exit = True
        return await super().on_tick(counter)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the port, not listening yet.  Raises StartError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        reason = f"{error.strerror}; change --host or --port"
        raise StartError(f"cannot listen on {host}, port {port}: {reason}") from error
    return bound


def possible_connections(wanted: int) -> int:
    """`wanted`, or fewer if the limit of file descriptors, which is raised if possible, is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            possible = max(soft - OTHER_DESCRIPTORS, soft // 2)
            log.warning(
                "--max-connections %d is lowered to %d, because `ulimit -Hn` is %d", wanted, possible, hard
            )
            return possible
    return wanted
