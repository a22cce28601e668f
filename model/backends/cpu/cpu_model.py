"""gpt-oss on the CPU: the network as a program for the native library.  One call, without the GIL, runs a
step.

Activations are float32 between instructions.  Before products with MXFP4 and int8 weights each row is
quantised to 16 bits.  Everything else is float32 arithmetic whose order depends only on a token's position in
its sequence.  So a token's logits are bit-identical whatever else is in the batch, however the prompt is
divided into chunks, and on any number of threads.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable
from ctypes import Structure, byref

import torch
from torch import Tensor

from model.backends.cpu.program import (
    ALL,
    BF16,
    PAGE_SIZE,
    SAMPLED,
    WHOLE,
    Activate,
    AddUp,
    Assignment,
    Attend,
    Clear,
    Combine,
    Decide,
    Dense,
    Embed,
    Experts,
    Norm,
    Program,
    Quantise,
    Rescore,
    Route,
    Rows,
    Step,
    Store,
    SumOverRanks,
)
from model.backends.cpu.weights import DENSE_FORMATS, Packed, Packer, Weights, allocate
from model.batch import Batch, KVCache
from model.config import SWIGLU_ALPHA, ModelConfig
from model.device import METER_BYTES, Meter
from model.layers import yarn_frequencies
from model.loading.tensors import TensorSource
from model.parallel.ranks import ALONE, Ranks
from model.sizes import decode_bytes

CANDIDATES = 256
"""Number of logits to rescore.  In all measurements, the best in bf16 was among the best 64 by 4 bits."""

TAIL = 1e-3
"""Maximum probability of all other tokens together for which their estimated logits are used."""


class CpuModel:
    """A gpt-oss in memory; a `Model`.

    dense    format of attention and unembedding weights: int8 in groups of 64, or bf16 as trained
    threads  number of threads of each step, including the caller's
    isa      the instruction set in use
    ranks    the ranks that compute the model; the checkpoint is then this rank's part
    """

    page_size = PAGE_SIZE

    def __init__(
        self,
        checkpoint: TensorSource,
        library: ctypes.CDLL,
        dense: str,
        threads: int,
        isa: str,
        ranks: Ranks = ALONE,
    ):
        self.config = checkpoint.config
        self.device = torch.device("cpu")
        self.dense, self.threads, self.isa = dense, threads, isa
        self.library = library
        self.ranks = ranks
        self._failure: BaseException | None = None
        add_up = weakref.WeakMethod(self._add_up)  # otherwise a reference cycle would keep the model alive
        self._sum_over_ranks = SumOverRanks(lambda rows: add_up()(rows))  # type: ignore[misc]
        self._machine = library.gptoss_open(threads, isa.encode())
        weakref.finalize(self, library.gptoss_close, self._machine)
        self.weights = Packer(library, self._machine, checkpoint, DENSE_FORMATS[dense]).all()
        self.weight_bytes = self.weights.nbytes
        self.prompt_activations = 16
        self._capacity = 0
        self.reserve(64)

    @property
    def settings(self) -> dict[str, str | int]:
        return {"isa": self.isa, "threads": self.threads, "dense": self.dense}

    @property
    def greedy_bytes(self) -> int:
        """Bytes of the unembedding that are read to find the most likely token."""
        rescored = 0 if self.weights.table is None else min(CANDIDATES, self.config.vocab_size)
        of_rows = rescored * self.config.hidden_size * torch.bfloat16.itemsize
        return self.weights.unembedding[0].data.nbytes + of_rows

    @property
    def page_bytes(self) -> int:
        config = self.config
        dims = config.head_dim + self._padded_dim
        return self._pairs * PAGE_SIZE * config.num_kv_heads * dims * torch.bfloat16.itemsize

    @property
    def cache_format(self) -> str:
        """Does not contain the number of threads, because results do not depend on it."""
        return f"cpu {self.isa} dense {self.dense} prompts {self.prompt_activations}"

    def new_cache(self, num_pages: int) -> KVCache:
        """A page's keys are [KV, D, 32], its values [KV, 32, D rounded up to 32], interleaved
        (native/layout.h).
        """

        def pages(dim: int) -> Tensor:
            shape = (self._pairs, num_pages, PAGE_SIZE, self.config.num_kv_heads, dim)
            return allocate(2 * math.prod(shape)).view(torch.bfloat16).view(shape)

        return KVCache(pages(self.config.head_dim), pages(self._padded_dim))

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        self.reserve(len(batch.tokens))
        step, logits, _held = self.step(batch, cache)
        wrong = self.run(step)
        if wrong > 0:
            raise ValueError(
                f"token {int(batch.tokens[wrong - 1])} is not in the vocabulary of {self.config.vocab_size}"
            )
        if self._failure is not None:
            raise self._failure
        return self.ranks.gathered(logits[:, : self.config.vocab_size])

    def _add_up(self, rows: int) -> int:
        """Called by the library in the middle of a step.  Returns 0, or 1 if the ranks could not add up."""
        try:
            self.ranks.add_up(self.scratch.x[:rows])
        except BaseException as failure:  # C++ cannot raise it; `forward` does
            self._failure = failure
            return 1
        return 0

    def step(self, batch: Batch, cache: KVCache) -> tuple[Step, Tensor, list[Tensor]]:
        """The batch in the library's form; the logits [N, V rounded up to 32] that it will write; and the
        tensors that it points to, which must be kept until it has run.
        """
        vocabulary, samples = self.config.vocab_size, len(batch.samples)
        temperatures, prompts = batch.temperatures, batch.prompts
        if temperatures is not None and len(temperatures) != samples:
            raise ValueError(f"{len(temperatures)} temperatures for {samples} rows of logits")
        logits = torch.empty(samples, vocabulary + -vocabulary % 32)
        of_batch = (
            batch.tokens,
            batch.positions,
            batch.slots,
            batch.samples,
            batch.starts,
            batch.page_table,
        )
        held = [tensor.contiguous() for tensor in of_batch]
        step = Step(
            *(tensor.data_ptr() for tensor in held),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            logits.data_ptr(),
            None if temperatures is None else temperatures.data_ptr(),
            None if prompts is None else prompts.data_ptr(),
            cache.num_pages,
            len(batch.tokens),
            len(batch.lengths),
            samples,
            batch.page_table.shape[-1],
        )
        on_the_host = [each for each in (temperatures, prompts) if each is not None]
        return step, logits, [*held, logits, *on_the_host]

    def run(self, step: Step) -> int:
        """Run the program over a step for which `reserve` has made room.

        Returns 0; 1 + the row of an unknown token; or -1 if a sum over the ranks failed.
        """
        return int(self.library.gptoss_run(self._machine, self.program.array, len(self.program), byref(step)))

    def reserve(self, tokens: int) -> None:
        """Allocate activations for steps of this many tokens, and build the program that points to them."""
        if tokens > self._capacity:
            self._capacity = 1 << (tokens - 1).bit_length()
            self.scratch = Scratch(self.config, self._capacity, self.ranks)
            self.program = network(self.config, self.weights, self.scratch, self.ranks, self._sum_over_ranks)

    def prefetch(self, wanted: bool) -> None:
        """Set whether steps of one token prefetch weights, or leave that to the processor."""
        self.library.gptoss_prefetch(self._machine, wanted)

    def shorten_prompts(self, bits: int) -> None:
        """Set the bits of activations in prompts, 16 or 8; see `build`."""
        self.prompt_activations = bits
        self.library.gptoss_prompt_bits(self._machine, bits)

    def read_bandwidth(self, data: Tensor) -> float:
        """Bytes per second at which this model's threads read `data` [n] uint8 once, for comparison."""
        return float(self.library.gptoss_read_bandwidth(self._machine, data.data_ptr(), data.nbytes))

    def decode_bytes(self, context: int) -> float:
        return decode_bytes(self.config, self.dense, context, unembedding=self.greedy_bytes)

    def meter(self) -> Meter:
        data = torch.ones(METER_BYTES, dtype=torch.uint8)
        return Meter("read", lambda: self.read_bandwidth(data))

    @property
    def _padded_dim(self) -> int:
        return self.config.head_dim + -self.config.head_dim % 32

    @property
    def _pairs(self) -> int:
        return (self.config.num_layers + 1) // 2


class Scratch:
    """Activations of one step of at most `tokens` tokens."""

    def __init__(self, config: ModelConfig, tokens: int, ranks: Ranks = ALONE):
        hidden, width, used = config.hidden_size, config.intermediate_size, config.experts_per_token
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        pairs, experts = tokens * used, ranks.size * config.num_experts
        self._rows: list[Tensor] = []

        frequencies, self.concentration = yarn_frequencies(config)
        self.frequencies = frequencies.contiguous()
        self.x = torch.empty(tokens, hidden)
        self.normed = torch.empty(tokens, hidden)
        self.hidden_rows = self.rows(tokens, hidden)
        self.qkv = torch.empty(tokens, heads + 2 * kv_heads + -(heads + 2 * kv_heads) % 32)
        self.seen = torch.empty(tokens, heads)
        self.seen_rows = self.rows(tokens, heads)
        self.gate = torch.empty(tokens, experts + -experts % 32)
        self.inner = torch.empty(pairs, 2 * width)
        self.inner_rows = self.rows(pairs, width)
        self.outer = torch.empty(pairs, hidden)
        self.chosen = torch.empty(pairs, dtype=torch.int32)
        self.shares = torch.empty(pairs)
        self.starts = torch.empty(experts + 1, dtype=torch.int32)
        self.pairs = torch.empty(pairs, dtype=torch.int32)
        self.assignment = Assignment(
            *(tensor.data_ptr() for tensor in (self.chosen, self.shares, self.starts, self.pairs)),
            experts,
            used,
            ranks.first(config.num_experts),
            config.num_experts,
        )

    def rows(self, count: int, width: int) -> Rows:
        """Memory for rows of codes; see `Rows` in native/abi.h."""
        codes = torch.empty(count, 4 * width, dtype=torch.int8)
        sums = torch.empty(count, width // 32, dtype=torch.int32)
        scales, blocks = torch.empty(count), torch.empty(count, width // 32)
        self._rows += [codes, sums, scales, blocks]
        return Rows(*(tensor.data_ptr() for tensor in (codes, sums, scales, blocks)))


def network(
    config: ModelConfig,
    weights: Weights,
    scratch: Scratch,
    ranks: Ranks,
    sum_over_ranks: Callable[[int], int],
) -> Program:
    """Embedding → L x (attention, experts) → norm → unembedding, as in backends/reference/gpt_oss.py."""
    s, hidden, width = scratch, config.hidden_size, config.intermediate_size
    heads = (config.num_heads, config.num_kv_heads, config.head_dim)
    x, normed = s.x.data_ptr(), s.normed.data_ptr()

    def norm(scale: Tensor, which: int = ALL) -> Norm:
        return Norm(x, scale.data_ptr(), normed, s.hidden_rows, hidden, which, config.rms_norm_eps)

    def dense(
        packed: Packed, rows: Rows, values: int, out: int | None, *, which: int = ALL, add: bool = False
    ) -> Dense:
        bias = None if packed.bias is None else packed.bias.data_ptr()
        sizes = (packed.format, packed.inputs, packed.outputs)
        return Dense(packed.data.data_ptr(), bias, rows, values, out, *sizes, which, add)

    def experts(packed: Packed, rows: Rows, out: Tensor, by_token: bool) -> Experts:
        assert packed.bias is not None
        data, bias = packed.data.data_ptr(), packed.bias.data_ptr()
        return Experts(
            data, bias, rows, out.data_ptr(), s.assignment, packed.inputs, packed.outputs, by_token
        )

    add_up: list[Structure] = [] if ranks.size == 1 else [AddUp(sum_over_ranks)]
    alone: list[Structure] = [] if ranks.rank == 0 else [Clear(x, hidden)]
    """Comes before operations that add to x and are followed by `add_up`, so that only rank 0's old x is
    summed.
    """

    vocabulary = config.vocab_size
    rows = (vocabulary, ranks.first(vocabulary), ranks.size * vocabulary)
    operands: list[Structure] = [Embed(weights.embedding.data_ptr(), x, hidden, *rows), *add_up]
    qkv, seen, inner, outer = (tensor.data_ptr() for tensor in (s.qkv, s.seen, s.inner, s.outer))
    for n, layer in enumerate(weights.layers):
        turn = (s.concentration, 1 / math.sqrt(config.head_dim))
        operands += [
            norm(layer.attention_norm),
            dense(layer.qkv, s.hidden_rows, normed, qkv),
            Store(qkv, s.frequencies.data_ptr(), n, *heads, *turn),
            Attend(qkv, layer.sinks.data_ptr(), seen, n, *heads, config.window(n) or 0),
        ]
        if layer.out.format != BF16:
            operands.append(Quantise(seen, s.seen_rows, config.num_heads * config.head_dim))
        operands += [
            *alone,
            dense(layer.out, s.seen_rows, seen, x, add=True),
            *add_up,
            norm(layer.experts_norm),
            dense(layer.gate, s.hidden_rows, normed, s.gate.data_ptr()),
            Route(s.gate.data_ptr(), s.assignment),
            experts(layer.mlp1, s.hidden_rows, s.inner, by_token=True),
            Activate(inner, s.inner_rows, width, config.experts_per_token, config.swiglu_limit, SWIGLU_ALPHA),
            experts(layer.mlp2, s.inner_rows, s.outer, by_token=False),
            *alone,
            Combine(outer, s.shares.data_ptr(), x, hidden, config.experts_per_token),
            *add_up,
        ]
    operands += [
        norm(weights.norm, SAMPLED),
        dense(weights.unembedding[0], s.hidden_rows, normed, None, which=SAMPLED),
    ]
    if weights.table is not None:
        operands += [
            Decide(config.vocab_size, CANDIDATES, TAIL),
            dense(weights.unembedding[1], s.hidden_rows, normed, None, which=WHOLE, add=True),
            Rescore(normed, weights.table.data_ptr(), hidden, config.vocab_size, CANDIDATES),
        ]
    return Program(operands)
