"""The processes of ranks 1 to N - 1, as rank 0 sees them: their start, their messages, their end."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from gptoss.ranks.channel import HEARTBEAT_SECONDS, HUNG_SECONDS, Channel, Message, RankLost, pair
from gptoss.ranks.job import Job
from gptoss.start import StartError
from model.parallel.lead import Order

log = logging.getLogger("gptoss.ranks")

Result = TypeVar("Result")

START_SECONDS = 300.0
"""Time for a process to start: torch may be on a slow disk."""

CAUSE_SECONDS = 2.0
"""After a step has failed, wait this long to find out which rank caused it."""

ENDING_SECONDS = 5.0
"""Time for the others to end by themselves; then they are killed."""


class OtherRank:
    """One other rank.

    last_heard  time of its last message; None before the first
    replies     key → the last message that has this key
    """

    def __init__(self, rank: int, process: subprocess.Popen[bytes], channel: Channel):
        self.rank = rank
        self.process = process
        self.channel = channel
        self.last_heard: float | None = None
        self.replies: dict[str, Message] = {}

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.process.pid})"


class Others:
    """All other ranks.  A thread receives their messages until `close`."""

    def __init__(self, job: Job):
        """Starts them; each will load its part of `job`.  `close` removes the folder that contains
        `job.meeting`.

        Raises StartError.
        """
        self.lost: RankLost | None = None
        """Which rank is lost, and why.  All other ranks have been killed then."""

        self._folder = Path(job.meeting).parent
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[RankLost], object]] = []
        self._closing = False
        self._others: list[OtherRank] = []
        try:
            for rank in range(1, job.size):
                self._others.append(_started(job.of_rank(rank)))
        except OSError as error:
            self._kill()
            raise StartError(f"rank {rank} cannot be started: {error.strerror}") from error
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name="ranks", daemon=True)
        self._thread.start()

    def broadcast(self, order: Order) -> None:
        """Send an order to all of them.  Raises RankLost if one has ended."""
        for other in self._others:
            try:
                other.channel.send(order)
            except OSError as error:
                raise self.explain(error) from error

    def wait_for_replies(self, key: str) -> list[Any]:
        """Wait until each rank has sent a message with this key.  Returns the values by rank.  Raises
        RankLost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.lost or all(key in other.replies for other in self._others))
            if self.lost is not None:
                raise self.lost
            return [other.replies.pop(key)[key] for other in self._others]

    def run_unless_lost(self, work: Callable[[], Result]) -> Result:
        """Run `work` on another thread, and return its result or raise its exception.

        If a rank is lost meanwhile, raises RankLost without waiting for `work`, which may wait for that rank.
        """
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            with self._changed:
                self._changed.notify_all()

        threading.Thread(target=run, name="rank 0", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self.lost or results or errors)
        if errors and isinstance(errors[0], RuntimeError):  # its connection to a lost rank may have broken
            self._wait_for_cause()
        if self.lost is not None:
            raise self.lost
        if errors:
            raise errors[0]
        return results[0]

    def explain(self, error: BaseException) -> RankLost:
        """Why a step has failed: because of a lost rank, or of an error of this one."""
        self._wait_for_cause()
        if self.lost is None:
            log.error("rank 0 failed in a step", exc_info=error)
            reason = str(error).split("\n")[0]
            self._lose(f"rank 0 failed in a step that all ranks compute together: {reason}")
        assert self.lost is not None
        return self.lost

    def on_lost(self, call: Callable[[RankLost], object]) -> None:
        """Have `call` called as soon as a rank is lost, usually on another thread."""
        with self._changed:
            self._callbacks.append(call)
            lost = self.lost
        if lost is not None:
            call(lost)

    def close(self) -> None:
        """End all other ranks.  Safe to call twice."""
        self._closing = True
        for other in self._others:
            with suppress(OSError):
                other.channel.send({"do": "end"})
        end = time.monotonic() + (0 if self.lost else ENDING_SECONDS)
        for other in self._others:
            with suppress(subprocess.TimeoutExpired):
                other.process.wait(max(0.0, end - time.monotonic()))
        self._kill()
        if self._thread is not threading.current_thread():
            self._thread.join()
        for other in self._others:
            other.channel.close()
        self._others = []
        shutil.rmtree(self._folder, ignore_errors=True)

    # On the thread that receives messages

    def _listen(self) -> None:
        with selectors.DefaultSelector() as ready:
            for other in self._others:
                ready.register(other.channel, selectors.EVENT_READ, other)
            last_check = last_heartbeat = time.monotonic()
            while not self._closing and self.lost is None:
                for key, _ in ready.select(HEARTBEAT_SECONDS / 2):
                    self._receive_from(key.data)
                now = time.monotonic()
                if now - last_check > HUNG_SECONDS / 2:  # this process itself was suspended, so start anew
                    for other in self._others:
                        other.last_heard = other.last_heard and now
                last_check = now
                if now - last_heartbeat >= HEARTBEAT_SECONDS:
                    last_heartbeat = now
                    for other in self._others:
                        other.channel.send_heartbeat()
                self._check_hung(now)

    def _receive_from(self, other: OtherRank) -> None:
        try:
            message = other.channel.receive()
        except EOFError:
            self._lose(f"{other} {_end_of(other.process)}")
            return
        other.last_heard = time.monotonic()
        if "failed" in message:
            self._lose(f"rank {other.rank}: {message['failed']}")
        with self._changed:
            for key in message:
                other.replies[key] = message
            self._changed.notify_all()

    def _check_hung(self, now: float) -> None:
        for other in self._others:
            if other.last_heard is None and now - self._began > START_SECONDS:
                self._lose(f"{other} has not started within {START_SECONDS:g} s")
            elif other.last_heard is not None and now - other.last_heard > HUNG_SECONDS:
                self._lose(f"{other} hangs: nothing was heard from it for {HUNG_SECONDS:g} s")

    # On any thread

    def _lose(self, reason: str) -> None:
        """Record the loss of a rank, and kill the others.  Only the first reason counts."""
        with self._changed:
            if self.lost is not None or self._closing:
                return
            self.lost = RankLost(reason)
            callbacks = list(self._callbacks)
            self._changed.notify_all()
        self._kill()
        for call in callbacks:
            call(self.lost)

    def _wait_for_cause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.lost is not None, CAUSE_SECONDS)

    def _kill(self) -> None:
        for other in self._others:
            other.process.kill()  # SIGKILL ends a stopped process too
        for other in self._others:
            other.process.wait()


def _started(job: Job) -> OtherRank:
    """Starts the process of one rank, and sends it its job."""
    here, there = pair()
    with there:
        places = os.pathsep.join(place or os.getcwd() for place in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-m", "gptoss.ranks.member", str(there.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(there.fileno(),),
            env=os.environ | {"PYTHONPATH": places},
        )
    channel = Channel(here)
    channel.send({"job": str(job)})
    return OtherRank(job.rank, process, channel)


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """How the process ended, after its channel was closed."""
    try:
        code = process.wait(CAUSE_SECONDS)
    except subprocess.TimeoutExpired:
        return "has closed its channel"
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
