"""The prefix cache on disk: which pages are stored, and how they are loaded and saved.

Scheduler      reports which pages were computed, shared and used, and requests missing ones (`fetch`)
DiskCache      this module, on the engine's thread: between two steps it saves a few pages, and loads those
               that were read (`turn`).  It never waits for the disk while there is something to compute
PageStore      reads and writes files, on its own thread

A full page is stored if it belongs to a long prompt, or to a prefix that two prompts shared.  Banded pages
are stored only where a prompt can be continued: for the last window before the prompt's end, before every
multiple of `RESUME_EVERY` tokens, and before each place where prompts differed.  The next prompt most likely
differs near the end of this one, so in the last tokens of a prompt every page is such a place.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.disk.store import PageStore, Read, Write
from engine.pages import Missing, Name, Pages
from model.batch import BANDED, FULL
from model.page_copies import PageBuffer, PageCopies

log = logging.getLogger(__name__)

LONG_PROMPT = 256
"""Tokens; a prompt of this length or more is stored when it is first seen."""

RESUME_EVERY = 512
"""Tokens; at each multiple, a prompt can be continued with other tokens."""

RESUME_LAST = 512
"""Tokens at the end of a prompt; after each of their pages, it can be continued with other tokens."""

SAVED_PER_TURN = 16
"""Maximum pages saved between two steps: a few milliseconds."""

BUFFER_BYTES = 64 * 2**20
"""Memory of the buffers for reading, and of those for writing."""

OFFERS = 2**16
"""Maximum pages that wait to be written; beyond that, the oldest are dropped."""

STALL_SECONDS = 10.0
"""After this time without a read page, the disk is not waited for, and the pages are computed."""

CLOSE_SECONDS = 3.0
"""How long a closing engine saves pages."""

WAIT_SECONDS = 0.05
"""How long the engine waits for the disk, if there is nothing to compute."""


@dataclass(eq=False, slots=True)
class Fetch:
    """Pages that are being read from disk into a sequence's table.

    missing  all pages to read
    loaded   the pages that have been read
    failed   whether some cannot be loaded
    """

    missing: list[Missing]
    loaded: list[Missing] = field(default_factory=list)
    failed: bool = False
    _asked: list[Read] = field(default_factory=list)
    _heard_at: float = 0.0

    @property
    def under_way(self) -> bool:
        return not self.failed and len(self.loaded) < len(self.missing)

    def cancel(self) -> None:
        """Stop loading.  Safe to call at any time."""
        self.failed = True
        for job in self._asked:
            job.cancelled = True


class DiskCache:
    def __init__(
        self,
        store: PageStore,
        copies: PageCopies,
        pages: Pages,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.store = store
        self._copies, self._pages, self._clock = copies, pages, clock
        self._fetch: Fetch | None = None
        self._coming: dict[Read, tuple[Fetch, Missing]] = {}
        self._offers: OrderedDict[Name, int] = OrderedDict()  # name → time of last use
        self._stalled = False
        count = max(4, BUFFER_BYTES // max(1, *copies.sizes))
        self._for_reads = _Buffers(copies, count)
        self._for_writes = _Buffers(copies, count)

    # For the scheduler

    def holds(self, name: Name) -> bool:
        """Whether these contents can be loaded."""
        return not self._stalled and self.store.holds(name)

    def fetch(self, missing: list[Missing]) -> Fetch:
        """Begin to load pages.  There is one fetch at a time."""
        assert self._fetch is None or not self._fetch.under_way
        self._fetch = Fetch(missing, _heard_at=self._clock())
        self._ask()
        return self._fetch

    def shared(self, hashes: list[bytes], used_ns: int) -> None:
        """Store these pages, because two prompts begin with them."""
        visible = self._pages.first_visible(len(hashes))
        for place, digest in enumerate(hashes):
            self._offer((FULL, digest), used_ns - place)
            if place >= visible:
                self._offer((BANDED, digest), used_ns - place)

    def computed(self, hashes: list[bytes], places: range, prompt: int, used_ns: int) -> None:
        """Store the computed pages at `places`, if it is worthwhile.

        prompt   number of tokens of the whole prompt
        used_ns  time of last use, Unix time in nanoseconds
        """
        if prompt < LONG_PROMPT:
            return
        size = self._pages.page_size
        complete = prompt // size
        last = self._pages.first_visible(max(0, complete - RESUME_LAST // size))
        for place in range(places.start, min(places.stop, complete)):
            self._offer((FULL, hashes[place]), used_ns - place)
            if place >= last or self._resumes(place, complete):
                self._offer((BANDED, hashes[place]), used_ns - place)

    def used(self, hashes: list[bytes], used_ns: int) -> None:
        """Set the time of last use of these pages, because a prompt that begins with them was answered."""
        names = [(kind, digest) for digest in hashes for kind in (FULL, BANDED)]
        self.store.touch(names, (used_ns - place // 2 for place in range(len(names))))

    def withdraw(self, hashes: Iterable[bytes]) -> None:
        """Delete these pages, because their contents may be wrong."""
        names = [(kind, digest) for digest in hashes for kind in (FULL, BANDED)]
        for name in names:
            self._offers.pop(name, None)
        self.store.forget(names)

    # For the engine

    @property
    def pending(self) -> bool:
        """Whether there are pages to save."""
        return bool(self._offers) and self.store.accepts

    def turn(self) -> None:
        """Between two steps: load the pages that were read, request more, save a few pages."""
        self.store.news.clear()
        while self.store.finished:
            self._finished(self.store.finished.popleft())
        fetch = self._fetch
        if fetch is not None and fetch.under_way:
            if self._clock() - fetch._heard_at > STALL_SECONDS:
                log.warning("the disk has not answered for %g s; prompts are computed instead", STALL_SECONDS)
                self._stalled = True
                self.store.faults += 1
                fetch.cancel()
            else:
                self._ask()
        self._save()

    def wait(self) -> None:
        """Wait a short time for the disk, if it has something to do."""
        if self.pending or (self._fetch is not None and self._fetch.under_way):
            self.store.news.wait(WAIT_SECONDS)

    def close(self) -> None:
        """Save the waiting pages, within CLOSE_SECONDS, and end.  Safe to call twice."""
        until = time.monotonic() + CLOSE_SECONDS
        while self.pending and time.monotonic() < until:
            self.turn()
            self.wait()
        self.store.close()

    def _finished(self, job: Read | Write) -> None:
        if isinstance(job, Write):
            self._for_writes.give_back(job.buffer)
            return
        self._stalled = False
        fetch, missing = self._coming.pop(job)
        if not fetch.failed:
            if job.succeeded:
                self._copies.load(missing.page, job.buffer)
                fetch.loaded.append(missing)
                fetch._heard_at = self._clock()
            else:
                fetch.cancel()
        self._for_reads.give_back(job.buffer)

    def _ask(self) -> None:
        fetch = self._fetch
        assert fetch is not None
        while len(fetch._asked) < len(fetch.missing) and (buffer := self._for_reads.take()) is not None:
            missing = fetch.missing[len(fetch._asked)]
            job = Read(missing.name, self._copies.sizes[missing.name[0]], buffer)
            fetch._asked.append(job)
            self._coming[job] = (fetch, missing)
            self.store.read(job)

    def _save(self) -> None:
        if not self.pending:
            return
        left = SAVED_PER_TURN
        while left and self._offers:
            name, used_ns = next(iter(self._offers.items()))
            page = self._pages.cached(name)
            if page is not None and not self.store.holds(name):
                buffer = self._for_writes.take()
                if buffer is None:
                    return
                self._copies.save(page, buffer)
                self.store.write(Write(name, self._copies.sizes[name[0]], buffer, used_ns))
                left -= 1
            del self._offers[name]

    def _offer(self, name: Name, used_ns: int) -> None:
        if not self.store.holds(name):
            self._offers[name] = used_ns
            if len(self._offers) > OFFERS:
                self._offers.popitem(last=False)

    def _resumes(self, place: int, complete: int) -> bool:
        """Whether a banded page is in the window before a multiple of RESUME_EVERY."""
        every = max(1, RESUME_EVERY // self._pages.page_size)  # pages
        after = (place // every + 1) * every
        return after <= complete and place >= self._pages.first_visible(after)


class _Buffers:
    """At most `count` buffers, created when they are first needed."""

    def __init__(self, copies: PageCopies, count: int):
        self._copies, self._left = copies, count
        self._free: list[PageBuffer] = []

    def take(self) -> PageBuffer | None:
        """A free buffer; None if all are in use."""
        if self._free:
            return self._free.pop()
        if not self._left:
            return None
        self._left -= 1
        return self._copies.buffer()

    def give_back(self, buffer: PageBuffer) -> None:
        self._free.append(buffer)
