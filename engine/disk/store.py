"""The prefix cache's pages on disk: a separate thread reads and writes the files.

The engine submits jobs (`read`, `write`, `touch`, `forget`) without waiting, and finds completed ones in
`finished`.  Reads have priority.  The buffers belong to the engine, and may be used again when their job is
finished.

A problem with a file costs one log line, and that page is computed again.  After a failed write, nothing is
written for a while.  The size on disk is limited: the least recently used pages are deleted first, and of one
prompt its end before its beginning.

If another server has the folder's lock, this one only reads pages until the other ends.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.disk.files import Damaged, PageFiles, space
from engine.pages import Name

if TYPE_CHECKING:
    from model.page_copies import PageBuffer

log = logging.getLogger(__name__)

REST_SECONDS = 60.0
"""After a failed write, nothing is written for this time."""

LOCK_EVERY_SECONDS = 10.0
"""How often to try for the lock, if another server has it."""


@dataclass(eq=False, slots=True)
class Read:
    """
    cancelled  set by the engine if the contents are no longer wanted
    succeeded  whether the contents were read; valid when the job is finished
    """

    name: Name
    size: int
    buffer: PageBuffer
    cancelled: bool = False
    succeeded: bool = False


@dataclass(eq=False, slots=True)
class Write:
    """used_ns: when the page was last used; Unix time, nanoseconds."""

    name: Name
    size: int
    buffer: PageBuffer
    used_ns: int


@dataclass(frozen=True, slots=True)
class _Touch:
    names: list[Name]
    used_ns: list[int]


@dataclass(frozen=True, slots=True)
class _Forget:
    names: list[Name]


class PageStore:
    """
    finished  completed jobs, in order; clear `news` before taking them
    news      set whenever a job is completed
    bytes     size on disk of all caches in the folder
    faults    number of files that could not be read or written since the start
    """

    def __init__(self, files: PageFiles, limit_bytes: int):
        self.files = files
        self.finished: deque[Read | Write] = deque()
        self.news = threading.Event()
        self.bytes = self.faults = 0
        self._limit = limit_bytes
        self._sizes: dict[str, int] = {}  # by path below the folder
        self._used: dict[str, int] = {}
        self._least_used: list[tuple[int, str]] = []  # a heap; an entry that differs from _used is outdated
        self._forgotten: set[Name] = set()  # will be deleted
        self._reads: deque[Read] = deque()
        self._others: deque[Write | _Touch | _Forget] = deque()
        self._work = threading.Condition()
        self._closing = False
        self._resting_until = self._lock_asked_at = float("-inf")
        self._scan()
        if not files.owner:
            log.warning(
                "another server writes the prefix cache to %s; this one only reads it until that one ends",
                files.folder,
            )
        self._thread = threading.Thread(target=self._run, name="page store", daemon=True)
        self._thread.start()

    # For the engine

    def holds(self, name: Name) -> bool:
        """Whether a page is on disk, as far as this process knows."""
        return self.files.path(name) in self._sizes and name not in self._forgotten

    @property
    def accepts(self) -> bool:
        """Whether writes may succeed now."""
        now = time.monotonic()
        return now >= self._resting_until and (
            self.files.owner or now - self._lock_asked_at >= LOCK_EVERY_SECONDS
        )

    def read(self, job: Read) -> None:
        with self._work:
            self._reads.append(job)
            self._work.notify()

    def write(self, job: Write) -> None:
        self._ask(job)

    def touch(self, names: Iterable[Name], used_ns: Iterable[int]) -> None:
        """Set the time of last use of those pages that are on disk."""
        self._ask(_Touch(list(names), list(used_ns)))

    def forget(self, names: Iterable[Name]) -> None:
        """Delete these pages, because their contents may be wrong."""
        names = list(names)
        self._forgotten.update(names)
        self._ask(_Forget(names))

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Finish the jobs, for at most this time, and end the thread.  Safe to call twice."""
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join(timeout_seconds)

    def _ask(self, job: Write | _Touch | _Forget) -> None:
        with self._work:
            self._others.append(job)
            self._work.notify()

    # On the store's thread

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._do(job)
        except BaseException:  # a bug: without this thread, all pages are computed
            log.exception("the prefix cache is no longer written to disk")
        self._sizes = {}
        self._resting_until = float("inf")
        self.files.close()

    def _next(self) -> Read | Write | _Touch | _Forget | None:
        with self._work:
            while not self._reads and not self._others:
                if self._closing:
                    return None
                self._work.wait()
            return self._reads.popleft() if self._reads else self._others.popleft()

    def _do(self, job: Read | Write | _Touch | _Forget) -> None:
        if isinstance(job, _Touch):
            for name, used_ns in zip(job.names, job.used_ns, strict=True):
                self._touch(self.files.path(name), used_ns)
            return
        if isinstance(job, _Forget):
            for name in job.names:
                self._delete(self.files.path(name))
            self._forgotten.difference_update(job.names)
            return
        try:
            if isinstance(job, Read):
                self._read(job)
            else:
                self._write(job)
        finally:
            self.finished.append(job)
            self.news.set()

    def _read(self, job: Read) -> None:
        if job.cancelled:
            return
        path = self.files.path(job.name)
        try:
            self.files.read(job.name, job.buffer.wait()[: job.size])
            job.succeeded = True
        except FileNotFoundError:
            log.info("%s was deleted; the page is computed again", path)
            self._look_again(path)
        except (Damaged, OSError) as error:
            self.faults += 1
            log.warning("%s: %s; the page is computed again", path, _reason(error))
            if isinstance(error, Damaged):
                self._delete(path)
            self._drop(path)

    def _write(self, job: Write) -> None:
        path, size = self.files.path(job.name), space(job.size)
        try:
            if not self.accepts or not self._is_owner() or path in self._sizes:
                return
            if self._make_room(size, job.used_ns):
                self.files.write(job.name, job.buffer.wait()[: job.size], job.used_ns)
                self._note(path, size, job.used_ns)
        except OSError as error:
            self.faults += 1
            self._resting_until = time.monotonic() + REST_SECONDS
            what = f"prefix pages are not written for {REST_SECONDS:g} s"
            log.warning("%s: %s; %s", self.files.folder, _reason(error), what)

    def _make_room(self, size: int, used_ns: int) -> bool:
        """Delete pages last used before `used_ns`, the least recently used first.  Raises OSError.

        Returns whether there is enough room now.
        """
        while self.bytes + size > self._limit:
            while self._least_used and self._used.get(self._least_used[0][1]) != self._least_used[0][0]:
                heapq.heappop(self._least_used)
            if not self._least_used or self._least_used[0][0] >= used_ns:
                return False
            path = self._least_used[0][1]
            self._drop(path)
            self.files.remove(path)
        return True

    def _touch(self, path: str, used_ns: int) -> None:
        if path not in self._sizes:
            return
        self._used[path] = used_ns
        heapq.heappush(self._least_used, (used_ns, path))
        if len(self._least_used) > 2 * len(self._used) + 1000:
            self._least_used = [(used_ns, path) for path, used_ns in self._used.items()]
            heapq.heapify(self._least_used)
        try:
            self.files.touch(path, used_ns)
        except FileNotFoundError:
            self._look_again(path)
        except OSError:  # after a restart it then counts as used earlier
            self.faults += 1

    def _is_owner(self) -> bool:
        """Whether this process may write.  Tries for the lock if another server had it.  Raises OSError."""
        if self.files.owner:
            return True
        self._lock_asked_at = time.monotonic()
        if not self.files.acquire():
            return False
        log.info("the other server has ended: this one now writes the prefix cache to %s", self.files.folder)
        self._scan()
        return True

    def _look_again(self, path: str) -> None:
        """Scan the folder again, because another process has deleted this file."""
        try:
            self._scan()
        except OSError as error:
            self.faults += 1
            log.warning("%s: %s", self.files.folder, _reason(error))
            self._drop(path)

    def _scan(self) -> None:
        """Read which pages are in the folder.  Raises OSError."""
        found = list(self.files.scan())
        self._used = {each.path: each.used_ns for each in found}
        self._least_used = [(each.used_ns, each.path) for each in found]
        heapq.heapify(self._least_used)
        self.bytes = sum(each.size for each in found)
        self._sizes = {each.path: each.size for each in found}

    def _note(self, path: str, size: int, used_ns: int) -> None:
        self._used[path] = used_ns
        heapq.heappush(self._least_used, (used_ns, path))
        self.bytes += size
        self._sizes[path] = size

    def _drop(self, path: str) -> None:
        """Forget a file that is gone."""
        self.bytes -= self._sizes.pop(path, 0)
        self._used.pop(path, None)

    def _delete(self, path: str) -> None:
        self._drop(path)
        if self.files.owner:
            try:
                self.files.remove(path)
            except OSError as error:
                self.faults += 1
                log.warning("%s cannot be deleted: %s", path, _reason(error))


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
