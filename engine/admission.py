"""The engine's limits, and the admission of waiting sequences.

The sequence at the head of the queue is admitted when there are pages for all its tokens.  It shares the
pages that the prefix cache already has.  If the disk has more of them, it waits for these to be read
(`Sequence.fetch`) and is admitted later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.disk.cache import DiskCache, Fetch
from engine.pages import Pages
from engine.request import Sequence
from model.batch import FULL, PerKind


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the cache and bounds on what the engine accepts.

    num_pages            in the KV cache, for both kinds of layer together, or for banded and for full ones
    page_size            positions per page
    window               keys a query of a banded layer may see, itself included
    max_context          prompt and answer of one request, in tokens
    max_running          sequences in one step
    max_tokens_per_step  of all sequences together
    max_queued           requests beyond `max_running` that may wait
    equal_shares         whether requests with many answers share the places equally (`first_within_share`):
                         for devices on which each row makes a step longer
    """

    num_pages: PerKind
    page_size: int
    window: int
    max_context: int
    max_running: int = 64
    max_tokens_per_step: int = 512
    max_queued: int = 256
    prefix_cache: bool = True
    equal_shares: bool = False

    def __post_init__(self) -> None:
        for name in ("page_size", "window", "max_running", "max_tokens_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.num_pages < 2 if isinstance(self.num_pages, int) else min(self.num_pages) < 1:
            raise ValueError(
                f"num_pages is {self.num_pages}, but even one token needs a page of each kind of layer: 2"
            )


class Admission:
    """
    prefix_queries    prompt tokens looked up in the prefix cache
    prefix_hits       those that were found
    prefix_disk_hits  those of them that were read from disk
    """

    def __init__(self, limits: Limits, pages: Pages, disk: DiskCache | None, clock: Callable[[], float]):
        self.limits, self.pages, self.disk = limits, pages, disk
        self._clock = clock
        self.prefix_queries = self.prefix_hits = self.prefix_disk_hits = 0
        # The sequence that did not fit last, and the free pages of each kind at that time.
        self._refused: tuple[Sequence, tuple[int, int]] | None = None

    def admit(self, sequence: Sequence, coming: set[bytes]) -> bool:
        """Give the head of the queue its cached pages, if there are pages for all its tokens.

        coming   hashes of the pages that this step will complete
        returns  whether the sequence can run; if not, it is asked for again before the next step
        """
        if sequence.fetch is not None:
            return self._fetched(sequence, sequence.fetch, coming)
        if (
            self._refused is not None
            and self._refused[0] is sequence
            and all(
                now <= then for now, then in zip(self.pages.available_of_each, self._refused[1], strict=True)
            )
        ):
            return False
        # The last token is always computed, because its logits are needed.
        shareable = (len(sequence.tokens) - 1) // self.limits.page_size
        found = 0
        if self.limits.prefix_cache:
            self.pages.extend_hashes(sequence.hashes, sequence.tokens, shareable, sequence.request.cache_salt)
            if not sequence.wants_prompt_logprobs:
                found = self.pages.find(sequence.hashes[:shareable])
                if found < shareable and sequence.hashes[found] in coming:
                    return False  # another sequence computes the same page in this step: share it after
                if found < shareable and self.disk is not None:
                    found = self.pages.find(sequence.hashes[:shareable], self.disk.holds)
        missing = self.pages.share(sequence.pages, sequence.hashes[:found])
        if missing is None or not self.pages.fits(sequence.pages, len(sequence.tokens)):
            self.pages.release(sequence.pages)
            self._refused = (sequence, self.pages.available_of_each)
            return False
        if missing:
            assert self.disk is not None
            sequence.fetch = self.disk.fetch(missing)
            return False
        self._start(sequence, found)
        return True

    def _fetched(self, sequence: Sequence, fetch: Fetch, coming: set[bytes]) -> bool:
        """The same for a sequence that waits for pages from disk."""
        if fetch.under_way or not self.pages.fits(sequence.pages, len(sequence.tokens)):
            return False
        found = len(sequence.pages.full)
        failed = fetch.failed
        self.give_up_fetch(sequence, release=failed)
        if failed:  # try again without the pages that could not be read
            return self.admit(sequence, coming)
        if sequence.cached_tokens is None:
            fetched = sum(missing.name[0] == FULL for missing in fetch.missing)
            self.prefix_disk_hits += fetched * self.limits.page_size
        self._start(sequence, found)
        return True

    def give_up_fetch(self, sequence: Sequence, release: bool = True) -> bool:
        """Stop waiting for pages from disk.  Those that have arrived stay in the prefix cache.

        release  also take all its pages from the sequence
        returns  whether it was waiting
        """
        if (fetch := sequence.fetch) is None:
            return False
        fetch.cancel()
        for missing in fetch.loaded:
            self.pages.register(missing.page, missing.name)
        if release:
            self.pages.release(sequence.pages)
        sequence.fetch = None
        return True

    def _start(self, sequence: Sequence, found: int) -> None:
        """Let the sequence begin after `found` cached pages."""
        sequence.computed = found * self.limits.page_size
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            self.prefix_queries += len(sequence.tokens)
            self.prefix_hits += sequence.computed
            sequence.began = self._clock()
            if self.disk is not None:
                sequence.used_ns = time.time_ns()
                self.disk.shared(sequence.hashes[:found], sequence.used_ns)
