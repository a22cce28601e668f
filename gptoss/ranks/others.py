"""The processes of ranks 1 .. N - 1, seen from rank 0: what they are told, what they say, how they end."""

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

from gptoss.ranks.channel import BEAT_SECONDS, HUNG_SECONDS, Channel, Message, RankLost, pair
from gptoss.ranks.job import Job
from gptoss.start import StartError
from model.parallel.lead import Order

log = logging.getLogger("gptoss.ranks")

Result = TypeVar("Result")

FIRST_WORD_SECONDS = 300.0
"""For a process to start: torch may come from a slow disk."""

VERDICT_SECONDS = 2.0
"""After a step has failed, to find out which rank it was."""

ENDING_SECONDS = 5.0
"""For the others to end by themselves."""


class Other:
    """One other rank.  heard: when, and None before its first word."""

    def __init__(self, rank: int, process: subprocess.Popen[bytes], channel: Channel):
        self.rank = rank
        self.process = process
        self.channel = channel
        self.heard: float | None = None
        self.said: dict[str, Message] = {}

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.process.pid})"


class Others:
    """All other ranks.  A thread listens to them until `close`."""

    def __init__(self, job: Job):
        """Starts them; each will load what `job` says.  The folder where they meet is removed by `close`.

        Raises StartError.
        """
        self.lost: RankLost | None = None
        """Which rank is lost, and why; then no other rank is there any more."""

        self._folder = Path(job.meeting).parent
        self._changed = threading.Condition()
        self._told: list[Callable[[RankLost], object]] = []
        self._closing = False
        self._others: list[Other] = []
        try:
            for rank in range(1, job.size):
                self._others.append(_started(job.of_rank(rank)))
        except OSError as error:
            self._kill()
            raise StartError(f"rank {rank} cannot be started: {error.strerror}") from error
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name="ranks", daemon=True)
        self._thread.start()

    def tell(self, order: Order) -> None:
        """Tell all of them.  Raises RankLost if one is gone."""
        for other in self._others:
            try:
                other.channel.send(order)
            except OSError as error:
                raise self.explain(error) from error

    def answers(self, key: str) -> list[Any]:
        """Wait until each has said so: what, by rank.  Raises RankLost."""
        with self._changed:
            self._changed.wait_for(lambda: self.lost or all(key in other.said for other in self._others))
            if self.lost is not None:
                raise self.lost
            return [other.said.pop(key)[key] for other in self._others]

    def while_they_live(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, in another thread: if it waits for a rank that is lost, it is left
        behind.  Raises RankLost."""
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
        if errors and isinstance(errors[0], RuntimeError):  # perhaps of a connection that a lost rank had
            self._verdict()
        if self.lost is not None:
            raise self.lost
        if errors:
            raise errors[0]
        return results[0]

    def explain(self, error: BaseException) -> RankLost:
        """Why a step has failed: by the rank that was lost, or by this one's own error."""
        self._verdict()
        if self.lost is None:
            log.error("rank 0 failed in a step", exc_info=error)
            reason = str(error).split("\n")[0]
            self._lose(f"rank 0 failed in a step that the other ranks are in too: {reason}")
        assert self.lost is not None
        return self.lost

    def when_lost(self, call: Callable[[RankLost], object]) -> None:
        """Call it, on another thread, as soon as a rank is lost."""
        with self._changed:
            self._told.append(call)
            lost = self.lost
        if lost is not None:
            call(lost)

    def close(self) -> None:
        """End them.  Safe to call twice."""
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

    # On the thread that listens

    def _listen(self) -> None:
        with selectors.DefaultSelector() as ready:
            for other in self._others:
                ready.register(other.channel, selectors.EVENT_READ, other)
            looked = beaten = time.monotonic()
            while not self._closing and self.lost is None:
                for key, _ in ready.select(BEAT_SECONDS / 2):
                    self._hear(key.data)
                now = time.monotonic()
                if now - looked > HUNG_SECONDS / 2:  # it is this process that did not run
                    for other in self._others:
                        other.heard = other.heard and now
                looked = now
                if now - beaten >= BEAT_SECONDS:
                    beaten = now
                    for other in self._others:
                        other.channel.beat()
                self._look_for_the_hung(now)

    def _hear(self, other: Other) -> None:
        try:
            message = other.channel.receive()
        except EOFError:
            self._lose(f"{other} {_end_of(other.process)}")
            return
        other.heard = time.monotonic()
        if "failed" in message:
            self._lose(f"rank {other.rank}: {message['failed']}")
        with self._changed:
            for key in message:
                other.said[key] = message
            self._changed.notify_all()

    def _look_for_the_hung(self, now: float) -> None:
        for other in self._others:
            if other.heard is None and now - self._began > FIRST_WORD_SECONDS:
                self._lose(f"{other} has not started within {FIRST_WORD_SECONDS:g} s")
            elif other.heard is not None and now - other.heard > HUNG_SECONDS:
                self._lose(f"{other} hangs: nothing was heard of it for {HUNG_SECONDS:g} s")

    # On any thread

    def _lose(self, reason: str) -> None:
        """The first reason counts; all others end."""
        with self._changed:
            if self.lost is not None or self._closing:
                return
            self.lost = RankLost(reason)
            told = list(self._told)
            self._changed.notify_all()
        self._kill()
        for call in told:
            call(self.lost)

    def _verdict(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.lost is not None, VERDICT_SECONDS)

    def _kill(self) -> None:
        for other in self._others:
            other.process.kill()  # a stopped process too
        for other in self._others:
            other.process.wait()


def _started(job: Job) -> Other:
    """A process for one rank, with its end of a channel."""
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
    return Other(job.rank, process, channel)


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """How a process ended whose channel is closed."""
    try:
        code = process.wait(VERDICT_SECONDS)
    except subprocess.TimeoutExpired:
        return "has closed its channel"
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
