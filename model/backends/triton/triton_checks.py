"""Checks each kernel against its plain version, on a model's own weights: before the first request, in tests,
and in bench/gpu.

A compiler's bug, an old driver, or an untested GPU can make a kernel compute wrong results, and wrong answers
are worse than a start that fails.  Inputs are random; outputs and unwritten pages are NaN before; and every
kind of step is tried: one token, a few, many, with contexts around the sizes of pages and window.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from triton.errors import TritonError

from model.backends.triton.kernels import (
    attention_decode,
    attention_prefill,
    expert_order,
    experts_few,
    experts_many,
    rotary,
)
from model.backends.triton.kernels.codes import in_fragments, padded, prescaled
from model.backends.triton.kernels.dense import add_linear, decoded, plain_product, product
from model.backends.triton.kernels.edits import edit_logits
from model.backends.triton.kernels.fp8 import plain_numbers, plain_stored
from model.backends.triton.kernels.norm import normalise, plain_normalise
from model.backends.triton.kernels.router import (
    choose,
    gate_parts,
    plain_choose,
    plain_router,
    router,
)
from model.backends.triton.kernels.token_choice import choose_tokens, plain_scores
from model.backends.triton.triton_model import FEW_FOR_DENSE, FEW_FOR_EXPERTS, KEYS_OF_A_PART, TritonModel
from model.batch import BANDED, FULL, Batch
from model.check import Check, relative_error
from model.draws import Draws
from model.logit_edits import Edits, edit

log = logging.getLogger(__name__)

TOKENS = (1, 3, 12, 20, 40, 200, 300, 1100)
"""Numbers of tokens to try when a model is built: every kernel runs, in nearly every shape that it
will have.
"""

TOLERANCE = {torch.bfloat16: 1e-2, torch.float32: 1e-4}
"""Maximum relative error, in the norm of a whole result: a few roundings to the type of the activations."""


class WrongResult(ImportError):
    """A kernel cannot be used on this GPU.  The message names it, and has a remedy."""


def probe(model: TritonModel) -> None:
    """Raises WrongResult if a kernel's result differs from plain PyTorch's, or if a kernel does not run."""
    try:
        with torch.inference_mode(), model.current:
            for check in checks(model, TOKENS):
                log.debug("%s, %d tokens: error %.2g", check.name, check.tokens, check.error)
                if not check.passed:
                    raise WrongResult(
                        f"the result of the Triton kernel {check.name} differs from PyTorch's for a step of"
                        f" {check.tokens} tokens: relative error {check.error:.2g};"
                        " --backend reference runs without"
                    )
    except (TritonError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise WrongResult(
            f"a Triton kernel does not run here: {reason}; --backend reference runs without"
        ) from error


def checks(model: TritonModel, tokens: Sequence[int], seed: int = 0) -> Iterator[Check]:
    """Checks every kernel in steps of these numbers of tokens, with the weights of the first layer of each
    kind.
    """
    draw = Draw(model, seed)
    for count in tokens:
        tolerance = TOLERANCE[model.dtype]
        for checked in (_dense, _attention, _experts_few, _experts_many, _edits, _sampling):
            for name, got, want in checked(draw, count):
                yield Check(name, count, relative_error(got, want), tolerance)


Results = Iterator[tuple[str, Tensor, Tensor]]
"""Name of a kernel, its result, and the right one."""


class Draw:
    """Random activations for one model, and outputs full of NaN."""

    def __init__(self, model: TritonModel, seed: int):
        self.model = model
        self.noise = torch.Generator(model.device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=self.noise, device=self.model.device)
        return drawn.to(self.model.dtype)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.noise, device=self.model.device)

    def poison(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(shape, torch.nan, dtype=dtype or self.model.dtype, device=self.model.device)

    def choice(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Memory for chosen experts and their shares, the output of a kernel."""
        shares = self.poison(tokens, self.model.config.experts_per_token, dtype=torch.float32)
        return torch.full_like(shares, -1, dtype=torch.int32), shares

    def batch(self, chunks: list[tuple[int, int]]) -> Batch:
        """Chunks of (keys before it, tokens), over scattered pages."""
        device, size = self.model.device, self.model.page_size
        width = max(-(-(known + length) // size) for known, length in chunks)
        pages = torch.randperm(2 * len(chunks) * width, generator=self.noise, device=device)
        table = pages.view(2, len(chunks), width)
        return Batch.of(chunks, table, size, samples=torch.empty(0, dtype=torch.int64, device=device))

    def cache(self, batch: Batch, kind: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values: random before the batch's own tokens, NaN everywhere else."""
        config, size, table = self.model.config, self.model.page_size, batch.page_table[kind]
        dtype = self.model.full_dtype if kind == FULL else self.model.dtype
        shape = (batch.page_table.numel(), config.num_kv_heads, size, config.head_dim)
        keys, values = self.poison(*shape), self.poison(*shape)
        lengths = batch.starts.diff()
        for sequence, known in enumerate((batch.lengths - lengths).tolist()):
            position = torch.arange(known, device=self.model.device)
            page = table[sequence, position // size].long()
            for pool in (keys, values):
                pool[page, :, position % size] = self.normal(known, config.num_kv_heads, config.head_dim)
        return plain_stored(keys, dtype), plain_stored(values, dtype)


def _dense(draw: Draw, tokens: int) -> Results:
    """Norms and dense products, as the network uses them in steps of this many tokens."""
    model, layer = draw.model, draw.model.weights.layers[0]
    eps, invariant = model.config.rms_norm_eps, model.batch_invariant
    x, seen = 3 * draw.normal(tokens, model.config.hidden_size), draw.normal(tokens, layer.out.shape[1])
    bias, norm = layer.qkv_bias, layer.attention_norm
    qkv = draw.poison(tokens, len(layer.qkv))
    if tokens <= FEW_FOR_DENSE and not invariant:
        got = product(x, layer.qkv, qkv, bias=bias, norm=norm, eps=eps)
        yield "norm, QKV and bias", got, plain_product(x, layer.qkv, got, bias=bias, norm=norm, eps=eps)
        got = product(seen, layer.out, x.clone(), bias=layer.out_bias, add=True)
        yield "output and residual", got, plain_product(seen, layer.out, x, bias=layer.out_bias, add=True)
    else:
        got = model.linear(x, layer.qkv, bias)
        yield "QKV and bias", got, plain_product(x, layer.qkv, qkv, bias=bias)
        residual = 0.1 * x  # small, so that errors of the product are visible beside it
        got = residual.clone()
        if model.by_library(layer.out):
            add_linear(got, seen, layer.out)
            normalise(got, norm, eps, draw.poison(*x.shape), bias=layer.out_bias)
        else:
            product(seen, layer.out, got, bias=layer.out_bias, add=True, invariant=invariant)
        want = plain_product(seen, layer.out, residual, bias=layer.out_bias, add=True)
        yield "output and residual", got, want
    parts = gate_parts(x, layer.gate)
    yield "experts' logits", parts.sum(0), plain_product(x, layer.gate, parts[0])

    # Only the first and last rows of the unembedding: all of it in float32 may not fit into memory.
    few = min(tokens, 80)
    rows, unembedding = draw.whole(0, tokens, few), model.weights.unembedding
    norm, logits = model.weights.norm, draw.poison(few, len(unembedding), dtype=torch.float32)
    got = product(x, unembedding, logits, norm=norm, eps=eps, rows=rows, invariant=invariant)
    ends = torch.cat((decoded(unembedding, slice(100)), decoded(unembedding, slice(-100, None))))
    want = plain_product(x, ends, got, norm=norm, eps=eps, rows=rows)
    yield "norm and unembedding", torch.cat((got[:, :100], got[:, -100:]), 1), want

    out = draw.poison(*x.shape)
    normalise(x, layer.attention_norm, eps, out)
    want, _ = plain_normalise(x, layer.attention_norm, eps)
    yield "norm", out, want
    out, in_order = draw.poison(*x.shape), draw.poison(tokens, padded(x.shape[1]))
    normalise(x, layer.experts_norm, eps, out, in_order)
    want, want_in_order = plain_normalise(x, layer.experts_norm, eps)
    yield "norm of both orders", torch.cat((out, in_order), 1), torch.cat((want, want_in_order), 1)
    moved, out = x.clone(), draw.poison(*x.shape)
    normalise(moved, layer.experts_norm, eps, out, bias=layer.out_bias)
    want = (x.float() + layer.out_bias.float()).to(x.dtype)
    yield "bias before a norm", moved, want
    yield "norm behind a bias", out, plain_normalise(want, layer.experts_norm, eps)[0]


def _attention(draw: Draw, tokens: int) -> Results:
    """Decodes of `tokens` sequences, and chunks of as many tokens, in layers of both kinds.

    No checks for lengths beyond the model's context.
    """
    model, config, size = draw.model, draw.model.config, draw.model.page_size
    window, longest = config.sliding_window, min(4 * config.sliding_window + 3, config.max_context - tokens)
    if longest < max(window, 7):  # one of the chunks below comes after this many keys
        return
    around = [0, window, size - 1, 1, window - 1, size, longest - 1, window + 1, window - 2]
    decodes = [(min(around[n % len(around)], longest - 1), 1) for n in range(min(tokens, 64))]
    chunks = [(longest - tokens % 7, tokens - 2 * (tokens // 3)), (window, tokens // 3), (0, tokens // 3)]
    for kind, name in ((BANDED, "banded"), (FULL, "full")):
        if len(model.weights.layers) <= kind:
            continue
        layer, span = model.weights.layers[kind], config.window(kind)
        splits = (1,) if span else sorted({1, 3, model.splits(tokens)})
        for parts in splits:
            batch = draw.batch(decodes)
            work = Attention(draw, batch, kind)
            out = draw.poison(len(decodes), config.num_heads * config.head_dim)
            inputs = (work.qkv, model.turn, *work.pages, 0, layer.sinks, batch, kind, span)
            arrivals = torch.zeros_like(model.split_arrivals)
            attention_decode.attend(*inputs, out, parts, arrivals=arrivals)
            yield f"{name} decode in {parts}", out, work.seen(layer.sinks, span)
            yield f"{name} decode's arrivals", arrivals, torch.zeros_like(arrivals)
            yield f"{name} decode's keys and values", *work.written()

        batch = draw.batch([chunk for chunk in chunks if chunk[1]])
        work = Attention(draw, batch, kind)
        out = draw.poison(tokens, config.num_heads * config.head_dim)
        rotary.write(
            work.qkv, model.turn, batch.positions, batch.slots[kind], *work.pages, 0, config.num_heads
        )
        yield f"{name} keys and values", *work.written()
        inputs = (work.qkv, model.turn, *work.pages, 0, layer.sinks, batch, kind, span)
        attention_prefill.attend(*inputs, out)
        yield f"{name} prefill", out, work.seen(layer.sinks, span)
        if model.batch_invariant and span is None:
            for part in (64, KEYS_OF_A_PART):
                out = draw.poison(tokens, config.num_heads * config.head_dim)
                attention_prefill.attend(*inputs, out, part)
                yield f"{name} prefill in parts of {part}", out, work.seen(layer.sinks, span)


class Attention:
    """Queries, keys and values of a batch, and two caches: one for the kernels, one filled by plain
    PyTorch.
    """

    def __init__(self, draw: Draw, batch: Batch, kind: int):
        config = draw.model.config
        self.turn, self.batch, self.kind = draw.model.turn, batch, kind
        self.qkv = draw.normal(
            len(batch.positions), (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        )
        self.pages = draw.cache(batch, kind)
        self.right = self.pages[0].clone(), self.pages[1].clone()
        places = (batch.positions, batch.slots[kind])
        rotary.plain_write(self.qkv, self.turn, *places, *self.right, config.num_heads)

    def seen(self, sinks: Tensor, window: int | None) -> Tensor:
        keys, values = self.right
        return attention_prefill.plain_attend(
            self.qkv, self.turn, keys, values, sinks, self.batch, self.kind, window
        )

    def written(self) -> tuple[Tensor, Tensor]:
        """All of both caches: slots that nothing should write must still be NaN."""
        got, want = (torch.stack([plain_numbers(pool) for pool in pair]) for pair in (self.pages, self.right))
        same = got.isnan() == want.isnan()
        return got.nan_to_num() + torch.where(same, 0.0, torch.nan), want.nan_to_num()


def _experts_few(draw: Draw, tokens: int) -> Results:
    """The experts pair by pair, if the network computes them so for this many tokens."""
    layer, config = draw.model.weights.layers[0], draw.model.config
    if tokens > FEW_FOR_EXPERTS or draw.model.batch_invariant:
        return
    used, eps, limit = config.experts_per_token, config.rms_norm_eps, config.swiglu_limit
    x = 3 * draw.normal(tokens, config.hidden_size)
    gate = (layer.experts_norm, layer.gate, layer.gate_bias)
    arrivals, (chosen, shares) = torch.zeros_like(draw.model.router_arrivals), draw.choice(tokens)
    normed = draw.poison(*x.shape, dtype=torch.float32)
    logits = router(x, *gate, arrivals, chosen, shares, normed, eps)
    want, want_normed = plain_router(x, *gate, eps)
    yield "router", logits, want
    yield "router's norm", normed, want_normed
    want, want_shares = plain_choose(logits, used)
    yield "router's choice", chosen, want
    yield "router's shares", shares, want_shares
    yield "router's arrivals", arrivals, torch.zeros_like(arrivals)
    draw.model.own(chosen, shares, other=0)

    normed = draw.normal(*x.shape)
    inner = draw.poison(tokens * used, config.intermediate_size, dtype=torch.float32)
    experts_few.gate_up(prescaled(normed), chosen, layer.mlp1, inner, limit)
    yield "gate and up of few", inner, experts_few.plain_gate_up(normed, chosen, layer.mlp1, limit)

    # Also with a residual of zero, because errors of the kernel are not visible beside a large one.
    inner = draw.normal(*inner.shape)
    choice = (chosen, shares, layer.mlp2)
    for name, residual in (("down of few", torch.zeros_like(x)), ("down of few and residual", x)):
        got = residual.clone()
        experts_few.down(prescaled(inner), *choice, got)
        yield name, got, experts_few.plain_down(inner, *choice, residual)


def _experts_many(draw: Draw, tokens: int) -> Results:
    """The experts of sorted pairs; the last expert has no token."""
    layer, config = draw.model.weights.layers[0], draw.model.config
    used, experts, limit = config.experts_per_token, config.num_experts, config.swiglu_limit
    logits = draw.normal(tokens, experts).float()
    if experts > used:
        logits[:, -1] = -torch.inf
    parts, bias = torch.stack((logits, draw.normal(tokens, experts).float())), layer.gate_bias[:experts]
    chosen, shares = draw.choice(tokens)
    choose(parts, bias, chosen, shares)
    want, want_shares = plain_choose(parts.sum(0) + bias.float(), used)
    yield "choice", chosen, want
    yield "shares", shares, want_shares

    order, starts = expert_order.sort(chosen, experts)
    want_order, want_starts = expert_order.plain_sort(chosen, experts)
    yield "sort", torch.cat((order, starts)), torch.cat((want_order, want_starts))
    if expert_order.at_once(tokens, experts):
        *sorted_at_once, shares_at_once = expert_order.choose_and_sort(parts, bias, used)
        yield "choice and sort", torch.cat(sorted_at_once), torch.cat((want_order, want_starts))
        yield "shares, sorted", shares_at_once, shares

    choice = draw.model.batch_invariant, draw.model.tiles
    normed = draw.normal(tokens, config.hidden_size)
    inner = draw.poison(tokens * used, padded(config.intermediate_size))
    sorted_pairs = (layer.mlp1, order, starts)
    experts_many.gate_up(in_fragments(normed), *sorted_pairs, inner, limit, *choice)
    yield "gate and up of many", inner, experts_many.plain_gate_up(normed, *sorted_pairs, limit, used)

    inner = draw.normal(tokens * used, config.intermediate_size)
    outer = draw.poison(tokens * used, config.hidden_size)
    sorted_pairs = (layer.mlp2, order, starts)
    experts_many.down(in_fragments(inner), *sorted_pairs, shares, outer, *choice)
    yield "down of many", outer, experts_many.plain_down(inner, *sorted_pairs, shares)

    x = draw.normal(tokens, config.hidden_size)
    got = x.clone()
    experts_many.combine(outer, got)
    yield "sum over experts", got, x.float() + outer.float().view(tokens, used, -1).sum(1)


def _edits(draw: Draw, tokens: int) -> Results:
    """Lists of tokens whose logits change in up to eight rows, and a mask for the last."""
    rows, size, device = min(tokens, 8), draw.model.config.vocab_size, draw.model.device
    length = min(700, size // 2)
    every = [torch.randperm(size, generator=draw.noise, device=device) for _ in range(rows)]
    listed = torch.stack(every)[:, :length]
    biases = 30 * draw.normal(rows, length).float()
    biases[:, -1] = -torch.inf
    counts, in_prompt = draw.whole(0, 4, rows, length), draw.whole(0, 2, rows, length)
    columns = [column.int() for column in (listed, counts, biases.view(torch.int32), in_prompt)]
    asked = Edits(
        records=torch.stack(columns, -1).view(-1, 4),
        starts=length * torch.arange(rows + 1, dtype=torch.int32, device=device),
        penalties=draw.whole(1, 30, 3, rows) / 10,
        masked=torch.tensor([rows - 1], dtype=torch.int32, device=device),
        masks=draw.whole(-(2**31), 2**31, 1, -(-size // 32)).int(),
    )
    logits = 3 * draw.normal(rows, size).float()
    in_list_or_not = torch.where(torch.arange(rows, device=device) % 2 == 0, listed[:, 0], every[0][-1])
    for name, latest in (("edits", None), ("edits ahead", in_list_or_not)):
        got, want = logits.clone(), logits.clone()
        edit_logits(got, asked, latest)
        edit(want, asked, latest)
        places = listed if latest is None else torch.cat((listed, latest[:, None]), 1)
        ours, theirs = got.gather(1, places), want.gather(1, places)
        yield name, ours.nan_to_num(torch.nan, neginf=0.0), theirs.nan_to_num(torch.nan, neginf=0.0)
        yield f"mask after {name}", (got[-1] > -torch.inf).float(), (want[-1] > -torch.inf).float()


def _sampling(draw: Draw, tokens: int) -> Results:
    """Tokens for up to eight rows.  A token is correct if its score equals the best one's, up to rounding."""
    rows, size, device = min(tokens, 8), draw.model.config.vocab_size, draw.model.device
    logits = 3 * draw.normal(rows, size).float()
    batch = replace(draw.batch([(9 * n, 1) for n in range(rows)]), samples=torch.arange(rows, device=device))

    def column(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values[:rows], dtype=dtype, device=device)

    seeds = draw.whole(-(2**63), 2**63 - 1, rows)
    temperature = column(1, 0.7, 0, 1, 1.5, 1, 0.3, 2)
    whole = column(*[size] * 8, dtype=torch.int32), column(*[1.0] * 8), column(*[0.0] * 8)
    top_k = column(min(50, size), size, size, size, 5, size, size, min(900, size), dtype=torch.int32)
    limited = top_k, column(0.9, 0.95, 1, 1, 1, 0.5, 1, 0.9), column(0, 0, 0, 0.05, 0, 0.01, 0, 0)
    for name, filters, limits in (("tokens", False, whole), ("tokens by filters", True, limited)):
        draws = Draws(seeds, temperature, *limits, filters)
        chosen, finite = choose_tokens(logits, draws, batch)
        scores = plain_scores(logits, draws, batch)
        short = scores.max(-1).values - scores.gather(1, chosen[:, None])[:, 0]
        yield name, (-100 * short).exp() * finite, torch.ones_like(short)
