"""Decode steps as CUDA graphs: one launch from the host instead of about 160.

A graph has one of `SIZES` rows, to which batches are padded.  The graphs that a server will need are captured
at its start (`prepare`), any other when a batch first has its size.  A graph reads its batch from tensors
with fixed addresses; one kernel copies the real batch there, and fills the remaining rows.  Two graphs never
run at once, so all share one memory pool and one tensor of logits: about 100 MB for up to 64 rows, which is
part of the workspace in engine/memory.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.batch import Batch, KVCache

log = logging.getLogger(__name__)

SIZES = (1, 2, 4, *range(8, 64, 8), *range(64, 257, 32))
LOGITS_FOR = (64, 256)
"""Rows of the tensors of logits: a smaller one for servers that never have more than 64 sequences."""


@triton.jit(
    do_not_specialize=["rows", "samples", "width", "static_width"],
    do_not_specialize_on_alignment=["tokens", "positions", "slots", "lengths", "page_table", "sampled"],
)
def _stage_kernel(
    tokens, positions, slots, lengths, page_table, sampled, rows, samples, width,
    static_tokens, static_positions, static_slots, static_lengths, static_table, static_sampled, static_width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (row, kind): one row of the static batch, a real one or a filler."""
    row, kind, size = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    real = row < rows
    tl.store(static_slots + kind * size + row, tl.load(slots + kind * rows + row, real, -1))
    if kind == 0:
        tl.store(static_tokens + row, tl.load(tokens + row, real, 0))
        tl.store(static_positions + row, tl.load(positions + row, real, 0))
        tl.store(static_lengths + row, tl.load(lengths + row, real, 0))
        tl.store(static_sampled + row, tl.load(sampled + row, row < samples, 0))
    if real:
        source = page_table + (kind * rows + row).to(tl.int64) * width
        target = static_table + (kind * size + row).to(tl.int64) * static_width
        for first in range(0, width, BLOCK):
            page = first + tl.arange(0, BLOCK)
            tl.store(target + page, tl.load(source + page, page < width, 0), page < width)


def stage(batch: Batch, static: Batch) -> None:
    """Copies `batch`, one token for each sequence, into the tensors of `static`, which has at least as many
    rows.

    Remaining rows get slot -1 and length 0, and remaining samples get row 0.
    """
    assert batch.slots.is_contiguous()
    assert batch.page_table.is_contiguous()
    rows, width = len(batch.tokens), batch.page_table.shape[2]
    sources = (batch.tokens, batch.positions, batch.slots, batch.lengths, batch.page_table, batch.samples)
    targets = (
        static.tokens,
        static.positions,
        static.slots,
        static.lengths,
        static.page_table,
        static.samples,
    )
    sizes = (rows, len(batch.samples), width)
    _stage_kernel[(len(static.tokens), 2)](
        *sources, *sizes, *targets, static.page_table.shape[2], BLOCK=1024, num_warps=4
    )


def blank(size: int, pages: int, device: torch.device) -> Batch:
    """A batch of `size` rows that neither write to the cache nor read from it, with room for `pages` pages
    each.
    """

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return Batch(
        tokens=zeros(size),
        positions=zeros(size),
        slots=zeros(2, size) - 1,
        starts=torch.arange(size + 1, dtype=torch.int32, device=device),
        lengths=zeros(size, dtype=torch.int32),
        page_table=zeros(2, size, pages, dtype=torch.int32),
        samples=zeros(size),
    )


def size_for(rows: int) -> int:
    """The size of the graph to which a batch of `rows` is padded; 0 if it is too large for all."""
    return next((size for size in SIZES if size >= rows), 0)


@contextmanager
def _stream_given_back(device: torch.device) -> Iterator[None]:
    """Restores the current stream, also after an exception.  If the end of a capture fails, torch.cuda.graph
    leaves its own stream current, and later work would run there, concurrently with work on the old stream.
    """
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.current_stream(device)
    try:
        yield
    finally:
        torch.cuda.set_stream(stream)


class Graphs:
    """The graphs of one network and one cache.

    network  the function to capture: writes the logits of a Batch and KVCache to a tensor [N, V]
    pages    maximum pages of a sequence, in one kind of layer
    needed   whether it is an error if there is no memory for a graph, because other ranks use theirs
    """

    def __init__(
        self,
        network: Callable[[Batch, KVCache, Tensor], object],
        device: torch.device,
        pages: int,
        vocab_size: int,
        needed: bool = False,
    ):
        self._network = network
        self._device = device
        self._pages = pages
        self._vocab_size = vocab_size
        self._needed = needed
        self._logits: dict[int, Tensor] = {}
        self._cache: KVCache | None = None
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Batch, Tensor] | None] = {}
        self._pool: Any = None

    def run(self, batch: Batch, cache: KVCache) -> Tensor | None:
        """The batch's logits [N, V], valid until the next call; None if no graph can run this batch."""
        rows, samples = len(batch.tokens), len(batch.samples)
        size = size_for(rows)
        if not size or rows != len(batch.lengths) or samples > size:
            return None
        if batch.page_table.shape[2] > self._pages:
            return None
        self._known(cache)
        if size not in self._captured:
            self._captured[size] = self._capture(size, cache)
        if (captured := self._captured[size]) is None:
            return None
        graph, static, logits = captured
        stage(batch, static)
        graph.replay()
        return logits[:samples]

    def prepare(self, cache: KVCache, most: int) -> None:
        """Capture all graphs that batches of up to `most` rows need, largest first.  Otherwise the first step
        of each size would take about 50 ms more, and wait for the device.
        """
        self._known(cache)
        for size in reversed(SIZES[: SIZES.index(size_for(min(most, SIZES[-1]))) + 1]):
            if size not in self._captured:
                self._captured[size] = self._capture(size, cache)

    def _known(self, cache: KVCache) -> None:
        if cache is not self._cache:  # the graphs contain the old cache's addresses
            self.forget()
            self._cache = cache

    def forget(self) -> None:
        """Free all graphs, and the reference to their cache."""
        self._captured.clear()
        self._cache = None
        self._pool = None  # a pool without graphs cannot be used again

    def _capture(self, size: int, cache: KVCache) -> tuple[torch.cuda.CUDAGraph, Batch, Tensor] | None:
        """A graph of `size` rows; None if there is no memory for it, and then such steps run without
        a graph.
        """
        try:
            static, logits = blank(size, self._pages, self._device), self._logits_of(size)
            self._network(static, cache, logits)  # compiles and loads every kernel, which a capture must not
            torch.cuda.synchronize(self._device)
            if not any(self._captured.values()):
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
            with _stream_given_back(self._device), capture:
                self._network(static, cache, logits)
        except RuntimeError as error:
            # PyTorch raises OutOfMemoryError; for the driver, which makes the graph, it is a general error.
            of_memory = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
            if self._needed or not of_memory:
                raise
            reason = str(error).split("\n")[0]
            log.warning("no memory for a CUDA graph of %d rows; such steps run without: %s", size, reason)
            return None
        log.info("captured a CUDA graph for %d rows", size)
        return graph, static, logits

    def _logits_of(self, size: int) -> Tensor:
        rows = next(rows for rows in LOGITS_FOR if rows >= size)
        if rows not in self._logits:
            shape = (rows, self._vocab_size)
            self._logits[rows] = torch.empty(shape, dtype=torch.float32, device=self._device)
        return self._logits[rows][:size]
