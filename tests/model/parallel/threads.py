"""Ranks as threads of one process, so that tests start quickly."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.config import ModelConfig
from model.parallel.lead import Leader, follow, leader
from model.parallel.ranks import Ranks

Result = TypeVar("Result")


class Meeting:
    """The communication between the threads of `size` ranks.  sums, gathers: numbers made so far."""

    def __init__(self, size: int):
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.places: list[Tensor | None] = [None] * size
        self.sums = self.gathers = 0


class ThreadRanks(Ranks):
    def __init__(self, rank: int, meeting: Meeting):
        super().__init__(rank, meeting.size)
        self.meeting = meeting

    def add_up(self, x: Tensor) -> None:
        x.copy_(torch.stack(self._all(x)).double().sum(0))
        if self.rank == 0:
            self.meeting.sums += 1

    def gathered(self, logits: Tensor) -> Tensor:
        if self.rank == 0:
            self.meeting.gathers += 1
        return torch.cat(self._all(logits), dim=1)

    def broadcast(self, tensor: Tensor) -> None:
        tensor.copy_(self._all(tensor)[0])

    def _all(self, x: Tensor) -> list[Tensor]:
        meeting = self.meeting
        meeting.places[self.rank] = x
        meeting.barrier.wait()
        copies = [place.clone() for place in meeting.places if place is not None]
        assert len({copy.shape for copy in copies}) == 1, "all ranks do the same"
        meeting.barrier.wait()
        return copies


@contextmanager
def led(size: int, build: Callable[[ThreadRanks], Any], whole: ModelConfig) -> Iterator[Leader]:
    """A model of several ranks: this thread uses the leader, the others run on their own threads.

    build  makes a rank's part of the model
    """
    meeting = Meeting(size)
    orders: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(1, size)]

    def tell(order: Any) -> None:
        for each in orders:
            each.put(json.dumps(order))  # as it would be sent

    def one(rank: int) -> None:
        try:
            ranks: Any = ThreadRanks(rank, meeting)
            follow(build(ranks), ranks, map(json.loads, iter(orders[rank - 1].get, None)))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        following = [pool.submit(one, rank) for rank in range(1, size)]
        try:
            ranks: Any = ThreadRanks(0, meeting)
            yield leader(build(ranks), whole, ranks, tell, lambda error: RuntimeError(str(error)))
        except threading.BrokenBarrierError:  # the rank that broke it knows why
            meeting.barrier.abort()
            _raise_first(following)
            raise
        finally:
            for each in orders:
                each.put(None)
    _raise_first(following)


def together(meeting: Meeting, work: Callable[[ThreadRanks], Result]) -> list[Result]:
    """The results of `work` on all ranks.  If one raises, the others raise at their next exchange."""

    def one(rank: int) -> Result:
        try:
            return work(ThreadRanks(rank, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(meeting.size) as pool:
        done = [pool.submit(one, rank) for rank in range(meeting.size)]
    _raise_first(done)
    return [each.result() for each in done]


def _raise_first(done: list[Future[Any]]) -> None:
    """Raise the exception of a rank, if there is one; preferably not that the barrier was broken."""
    failures = [failure for each in done if (failure := each.exception()) is not None]
    for failure in sorted(failures, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise failure
