"""The allocator of KV cache pages: grow, release, share a prefix, free pages behind the sliding window.

A page has room for `page_size` positions of either the full or the banded (sliding-window) layers.  One pool
serves both kinds; if they differ in bytes, each kind has its own pool, and banded pages have the lower
numbers (model/batch.py).  A sequence holds pages of both kinds for the same positions, until a banded page
falls behind the window and is freed.

Every page is in exactly one state:

    free    not held, not cached
    held    by one or more sequences (`_holders` counts them)
    idle    not held, but cached: it may be shared again, or be taken, least recently used first

A page is cached only when it is full and computed, so no sequence ever writes into a page that another one
reads.  Cached pages are found by a hash of all tokens up to their end.  The hash is keyed by a secret, so
that a client cannot make two prompts collide.  The secret is random for this process, or that of the folder
in which pages are stored on disk (engine/disk/files.py), where they are found by the same hash.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from model.batch import BANDED, FULL, PerKind

Name = tuple[int, bytes]
"""Identifies the contents of a page: the kind of layer, and the hash of all tokens up to its end."""


def _no_pages() -> array[int]:
    return array("i")


def _salted(salt: bytes) -> bytes:
    """The value in place of a previous hash for the first page.  Its length differs from that of a hash."""
    return hashlib.blake2b(salt, digest_size=15).digest() if salt else b""


def _nowhere(name: Name) -> bool:
    return False


@dataclass(eq=False, slots=True)
class PageTable:
    """The pages one sequence holds: `full[i]` and `banded[i]` have room for positions i * page_size and on.

    behind     banded[:behind] are behind the window and no longer held; their numbers are stale
    published  pages [:published] have been offered to the prefix cache
    """

    full: array[int] = field(default_factory=_no_pages)
    banded: array[int] = field(default_factory=_no_pages)
    behind: int = 0
    published: int = 0

    @property
    def held(self) -> int:
        """Number of pages that the sequence holds."""
        return len(self.full) + len(self.banded) - self.behind


@dataclass(frozen=True, slots=True)
class Missing:
    """A page of a table whose contents, `name` at index `place`, are not loaded yet."""

    name: Name
    place: int
    page: int


class _Pool:
    """The pages of one pool that no sequence holds.

    free  a stack: the page freed last is taken first
    idle  least recently used first
    """

    def __init__(self, numbers: range):
        self.free = list(reversed(numbers))
        self.idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        return len(self.free) + len(self.idle)


class Pages:
    def __init__(self, num_pages: PerKind, page_size: int, window: int, secret: bytes | None = None):
        """
        num_pages  for both kinds of layer together, or for banded and for full ones
        window     keys a query of a banded layer may see, itself included
        secret     up to 64 bytes, the key of all hashes; None: a random one
        """
        self.page_size, self.window = page_size, window
        if isinstance(num_pages, int):
            self.num_pages, self._first_full = num_pages, 0
            self._pools = (_Pool(range(num_pages)),) * 2
        else:
            self.num_pages, self._first_full = sum(num_pages), num_pages[BANDED]
            numbers = range(self.num_pages)
            self._pools = (_Pool(numbers[: self._first_full]), _Pool(numbers[self._first_full :]))
        self._shared = isinstance(num_pages, int)
        self._holders = [0] * self.num_pages
        # For each kind: hash → page, held or idle.
        self._cached: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        self._hash_of: dict[int, Name] = {}  # the inverse: page → kind and hash
        self._secret = secrets.token_bytes(16) if secret is None else secret

    # How much fits

    @property
    def available(self) -> int:
        """Pages a sequence could be given now."""
        return self._pools[FULL].available + (0 if self._shared else self._pools[BANDED].available)

    @property
    def available_of_each(self) -> tuple[int, int]:
        """Pages of each kind that a sequence could be given now, if it took none of the other."""
        return self._pools[BANDED].available, self._pools[FULL].available

    def _can_give(self, banded: int, full: int) -> bool:
        """Whether a sequence could be given these numbers of pages now."""
        banded_left, full_left = self.available_of_each
        return banded + full <= full_left if self._shared else banded <= banded_left and full <= full_left

    @property
    def _band(self) -> int:
        """Maximum number of banded pages that `window` consecutive positions can touch."""
        return (self.window + self.page_size - 2) // self.page_size + 1

    def needed(self, tokens: int) -> int:
        """Pages a sequence of `tokens` positions holds at most, when it advances token by token."""
        return sum(self.needed_of_each(tokens))

    def needed_of_each(self, tokens: int) -> tuple[int, int]:
        """The same, separately: banded and full pages."""
        pages = -(-tokens // self.page_size)
        return min(pages, self._band), pages

    def fits(self, table: PageTable, tokens: int) -> bool:
        """Whether there are now enough pages for `table` to hold a sequence of `tokens` positions."""
        banded, full = self.needed_of_each(tokens)
        return self._can_give(banded - (len(table.banded) - table.behind), full - len(table.full))

    @property
    def capacity(self) -> int:
        """Positions of the longest sequence that fits alone: the largest whose need there is room for."""
        if self._shared:
            return max(self.num_pages // 2, self.num_pages - self._band) * self.page_size
        banded, full = self._first_full, self.num_pages - self._first_full
        return (full if banded >= self._band else min(banded, full)) * self.page_size

    def reach(self, table: PageTable) -> int:
        """Positions `table` has room for, or could be given room for now.

        A page of positions costs one page of each kind.
        """
        room = self.available // 2 if self._shared else min(self.available_of_each)
        return (len(table.full) + room) * self.page_size

    # Growing and freeing

    def grow(self, table: PageTable, tokens: int) -> bool:
        """Extend `table` until it has room for `tokens` positions.

        Returns False, and changes nothing, if there is no room.
        """
        missing = -(-tokens // self.page_size) - len(table.full)
        if not self._can_give(missing, missing):
            return False
        for _ in range(missing):
            table.full.append(self._take(FULL))
            table.banded.append(self._take(BANDED))
        return True

    def slide(self, table: PageTable, computed: int) -> None:
        """Free the banded pages that no position from `computed` on can see."""
        first = max(0, computed - self.window + 1) // self.page_size
        for i in range(table.behind, min(first, len(table.banded))):
            self._drop_holder(table.banded[i])
            table.behind = i + 1

    def release(self, table: PageTable) -> None:
        """Free all pages; the table is empty afterwards.

        Last positions first, so that shared prefixes stay cached longest.
        """
        for i in range(len(table.full) - 1, -1, -1):
            self._drop_holder(table.full[i])
            if i >= table.behind:
                self._drop_holder(table.banded[i])
        table.full, table.banded, table.behind, table.published = _no_pages(), _no_pages(), 0, 0

    def _take(self, kind: int) -> int:
        pool = self._pools[kind]
        if pool.free:
            page = pool.free.pop()
        else:
            page, _ = pool.idle.popitem(last=False)
            self._forget(page)
        self._holders[page] = 1
        return page

    def _drop_holder(self, page: int) -> None:
        self._holders[page] -= 1
        if self._holders[page] == 0:
            if page in self._hash_of:
                self._pool_of(page).idle[page] = None
            else:
                self._pool_of(page).free.append(page)

    def _pool_of(self, page: int) -> _Pool:
        return self._pools[FULL if page >= self._first_full else BANDED]

    # Sharing prefixes

    def extend_hashes(self, hashes: list[bytes], tokens: Tokens[int], pages: int, salt: bytes = b"") -> None:
        """Extend `hashes`, one for each complete page of `tokens`, to `pages` pages.

        Each hash includes all before it, and the salt: pages of another salt are never found.
        """
        size = self.page_size
        for i in range(len(hashes), pages):
            digest = hashlib.blake2b(
                hashes[-1] if hashes else _salted(salt), digest_size=16, key=self._secret
            )
            digest.update(array("q", tokens[i * size : (i + 1) * size]).tobytes())
            hashes.append(digest.digest())

    def find(self, hashes: list[bytes], elsewhere: Callable[[Name], bool] = _nowhere) -> int:
        """The longest beginning of `hashes` that can be shared, in pages.

        It can be if all its full pages are cached, and those banded pages that the position after it still
        sees.

        elsewhere  whether a page that is not cached could be loaded
        """
        full, banded = self._cached[FULL], self._cached[BANDED]
        found = run = 0  # run: consecutive banded pages cached up to here
        for i, digest in enumerate(hashes):
            if digest not in full and not elsewhere((FULL, digest)):
                break
            run = run + 1 if digest in banded or elsewhere((BANDED, digest)) else 0
            if run >= i + 1 - self.first_visible(i + 1):
                found = i + 1
        return found

    def share(self, table: PageTable, hashes: list[bytes]) -> list[Missing] | None:
        """Begin an empty `table` with the pages of `hashes`: cached ones, and new ones for the others.

        Returns the new ones, which must be filled and then `register`ed before they are read.  Returns None,
        and changes nothing, if there is no room.
        """
        behind = self.first_visible(len(hashes))
        wanted = [
            (kind, place)
            for kind, first in ((FULL, 0), (BANDED, behind))
            for place in range(first, len(hashes))
        ]
        cached = {
            (kind, place): page
            for kind, place in wanted
            if (page := self._cached[kind].get(hashes[place])) is not None
        }
        idle = [kind for (kind, _), page in cached.items() if self._holders[page] == 0]
        new = [(kind, place) for kind, place in wanted if (kind, place) not in cached]
        taken = [*idle, *(kind for kind, _ in new)]
        if not self._can_give(taken.count(BANDED), taken.count(FULL)):
            return None
        for page in cached.values():
            self._hold(page)
        missing = [Missing((kind, hashes[place]), place, self._take(kind)) for kind, place in new]
        numbers = cached | {(each.name[0], each.place): each.page for each in missing}
        table.full.extend(numbers[FULL, place] for place in range(len(hashes)))
        table.banded.extend(numbers.get((BANDED, place), 0) for place in range(len(hashes)))
        table.behind, table.published = behind, len(hashes)
        return missing

    def register(self, page: int, name: Name) -> None:
        """Add a held page, which now has its contents, to the prefix cache."""
        kind, digest = name
        if self._cached[kind].setdefault(digest, page) == page:
            self._hash_of[page] = name

    def cached(self, name: Name) -> int | None:
        """The page with these contents, if there is one."""
        kind, digest = name
        return self._cached[kind].get(digest)

    def publish(self, table: PageTable, hashes: list[bytes], pages: int) -> None:
        """Add the first `pages` pages, which are complete and computed, to the prefix cache.

        If another page already has the hash, this one stays private.
        """
        for i in range(table.published, pages):
            for kind, page in ((FULL, table.full[i]), (BANDED, table.banded[i])):
                self.register(page, (kind, hashes[i]))
        table.published = pages

    def refresh(self, hashes: list[bytes]) -> None:
        """Count the banded pages at the end of this prefix as just used, because a conversation will be
        continued from there.

        They were freed earlier than the full pages, when the answer moved past them, but are as useful.
        """
        for digest in hashes[self.first_visible(len(hashes)) :]:
            page = self._cached[BANDED].get(digest)
            if page is not None and page in self._pools[BANDED].idle:
                self._pools[BANDED].idle.move_to_end(page)

    def withdraw(self, hashes: list[bytes]) -> None:
        """Remove the pages of `hashes` from the prefix cache, because their contents may be wrong."""
        for kind in (BANDED, FULL):
            for digest in hashes:
                page = self._cached[kind].get(digest)
                if page is not None:
                    self._forget(page)
                    if page in self._pools[kind].idle:
                        del self._pools[kind].idle[page]
                        self._pools[kind].free.append(page)

    def first_visible(self, pages: int) -> int:
        """The first banded page that the position after `pages` pages still sees."""
        return max(0, pages * self.page_size - self.window + 1) // self.page_size

    def _hold(self, page: int) -> int:
        if self._holders[page] == 0:
            del self._pool_of(page).idle[page]
        self._holders[page] += 1
        return page

    def _forget(self, page: int) -> None:
        """Remove the page from the prefix cache."""
        kind, digest = self._hash_of.pop(page)
        del self._cached[kind][digest]

    def check(self) -> None:
        """Assert all invariants.  For tests, because it checks every page."""
        held = sum(holders > 0 for holders in self._holders)
        free = [page for pool in set(self._pools) for page in pool.free]
        idle = [page for pool in set(self._pools) for page in pool.idle]
        assert len(free) + held + len(idle) == self.num_pages
        assert len({*free, *idle}) == self.available
        assert all(self._holders[page] == 0 for page in (*free, *idle))
        assert all(page not in self._hash_of for page in free)
        assert all(page in self._hash_of for page in idle)
        assert all(self._pool_of(page) is pool for pool in self._pools for page in (*pool.free, *pool.idle))
        assert sum(map(len, self._cached)) == len(self._hash_of)
        assert all(self._cached[kind][digest] == page for page, (kind, digest) in self._hash_of.items())
