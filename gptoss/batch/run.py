"""Runs all requests of a file concurrently."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptoss.batch import lines
from gptoss.batch.client import Client, GaveUp, Unavailable, at_url, in_process
from gptoss.batch.lines import BadLine, Task
from gptoss.batch.results import Results
from gptoss.progress import Progress, duration
from gptoss.standard_streams import say
from gptoss.start import StartError
from server.logs import escaped
from server.settings import Settings

ALL_ANSWERED, SOME_FAILED, UNAVAILABLE = 0, 1, 75


@dataclass(slots=True)
class Tally:
    """Statistics of this run.  Tokens are counted from the `usage` of the answers."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, body: Any) -> None:
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict):
            return
        self.prompt_tokens += _number(usage, "prompt_tokens", "input_tokens")
        self.answer_tokens += _number(usage, "completion_tokens", "output_tokens")
        for name in "prompt_tokens_details", "input_tokens_details":
            if isinstance(details := usage.get(name), dict):
                self.cached_tokens += _number(details, "cached_tokens")

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        speed = self.answer_tokens / max(seconds, 1e-6)
        prompts = f"{self.prompt_tokens} tokens of prompts ({self.cached_tokens} of them cached)"
        return f"{prompts}, {self.answer_tokens} of answers, {speed:.1f}/s in {duration(seconds)}"


def _number(usage: dict[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)


class Batch:
    """
    source   the file of requests
    results  the file of results
    total    number of requests, including invalid lines; `done` of them have a result
    """

    def __init__(self, source: Path, results: Results):
        """Raises StartError if the file is missing, or the results belong to another."""
        self._source, self._results = source, results
        self.total = self.done = known = 0
        for line in lines.read(source):
            self.total += 1
            self.done += results.has(line)
            known += results.has(line) and isinstance(line, Task)
        if known < results.ids:
            others = f"{results.ids - known} requests that are not in {source}"
            raise StartError(f"the results have {others}; give another file")
        self.tally = Tally()

    async def run(self, client: Client, at_once: int) -> None:
        """Raises Unavailable."""
        with Progress("answering", self.total, self.done, unit="requests") as progress:
            todo = self._todo(progress)
            workers = [asyncio.create_task(self._work(client, todo, progress)) for _ in range(at_once)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _todo(self, progress: Progress) -> Iterator[Task]:
        for line in lines.read(self._source):
            if self._results.has(line):
                continue
            if isinstance(line, BadLine):
                self._results.refused(line)
                self._one_more(progress)
            else:
                yield line

    async def _work(self, client: Client, todo: Iterator[Task], progress: Progress) -> None:
        for task in todo:
            try:
                reply = await client.ask(task)
            except GaveUp as error:
                self._results.gave_up(task, "connection_failed", str(error))
            else:
                self._results.answered(task, reply)
                self.tally.add(reply.body)
            self._one_more(progress)

    def _one_more(self, progress: Progress) -> None:
        self.done += 1
        progress.add(1)


def batch(settings: Settings, asked: argparse.Namespace) -> int:
    """Run the batch, and return the exit code.  Raises StartError."""
    if settings.log_level != "debug":
        logging.getLogger("gptoss.requests").setLevel("WARNING")  # no log line for each request
    source, target = Path(asked.source), Path(asked.target)
    if target.exists() and source.exists() and target.samefile(source):
        raise StartError(f"{target}: the results cannot be written to the file of requests")
    if not source.is_file():  # before the file of results is created
        raise StartError(f"{source}: there is no such file")
    with Results(target) as results:
        work = Batch(source, results)
        code = 0 if work.done == work.total else _answer(work, settings, asked)
        done, failed = f"{work.done} of {work.total} done", results.failed
    say(f"{target}: {done}, {failed} of them errors; {work.tally}")
    if code:
        say("run the same command again to do the rest")
        return code
    return SOME_FAILED if failed else ALL_ANSWERED


def _answer(work: Batch, settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None:
        made = in_process(settings)
    else:
        made = at_url(asked.url, asked.key or os.environ.get("OPENAI_API_KEY"))
    return asyncio.run(_until_told_to_stop(work, made, asked.concurrency))


async def _until_told_to_stop(
    work: Batch, made: AbstractAsyncContextManager[Client], at_once: int | None
) -> int:
    """The exit code: 0 if all requests have a result."""
    told: list[int] = []
    loop = asyncio.get_running_loop()
    async with made as client:
        work.tally.began = time.monotonic()
        running = asyncio.ensure_future(work.run(client, at_once or client.at_once))

        def stop(number: int) -> None:
            told.append(number)
            for each in signal.SIGINT, signal.SIGTERM:
                loop.remove_signal_handler(each)  # a second one ends the process
            running.cancel()

        for each in signal.SIGINT, signal.SIGTERM:
            loop.add_signal_handler(each, stop, each)
        try:
            await running
        except asyncio.CancelledError:
            if not told:
                raise
            return 128 + told[0]
        except Unavailable as error:
            say(f"the server does not answer any more: {escaped(str(error))}")
            return UNAVAILABLE
    return 0
