"""Each kernel of a decode step by itself: its time, its bytes, and its share of the copy bandwidth; and the
same with other tiles.

A kernel runs with the weights of each layer, one after the other, all in one graph, which is replayed.  So a
launch takes as long as in a real step, and weights are no longer in the cache when they are read again.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.gpu.load import Decode
from model.backends.triton.kernels import (
    attention_decode,
    dense,
    dense_int8,
    expert_order,
    experts_few,
    experts_many,
)
from model.backends.triton.kernels.codes import padded, prescaled
from model.backends.triton.kernels.dense import product
from model.backends.triton.kernels.router import ROUTER_TILE, choose, gate_parts, router
from model.backends.triton.triton_model import TritonModel
from model.batch import BANDED, FULL

Run = Callable[[], object]


def median_seconds(run: Run, rounds: int) -> float:
    """Median time of a run, by the device's clock."""
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(statistics.median(times))


def graph_of(run: Run) -> Run:
    """Run once, then capture `run` in a graph.  Returns a function that replays it."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def measure(model: TritonModel, bandwidth: float) -> list[dict[str, Any]]:
    """The rows of the table: kernel, us, mb, share."""
    rows = []
    for name, run, count, nbytes in pieces(model):
        seconds = median_seconds(graph_of(run), 20) / count
        rows.append(
            {
                "kernel": name,
                "us": round(1e6 * seconds, 2),
                "mb": round(nbytes / 1e6, 3),
                "share": round(nbytes / bandwidth / seconds, 3),
            }
        )
        torch.cuda.empty_cache()
    return rows


Piece = tuple[str, Run, int, float]
"""Name, function to run, number of kernels that it launches, and the bytes that each must read."""


def pieces(model: TritonModel) -> Iterator[Piece]:
    for tokens in (1, 8, 16):
        yield from _dense(model, tokens)
    for tokens in (1, 8, 64):
        yield _unembedding(model, tokens)
    for tokens in (1, 2, 4, 8, 16):
        yield from _few(model, tokens)
    for tokens in (4, 8, 16, 64, 256, 2048):
        yield from _many(model, tokens)
    for streams, context in ((1, 1000), (1, 8000), (1, 131000), (8, 8000), (64, 1000)):
        for kind, name in ((FULL, "full"), (BANDED, "banded")):
            if context < model.config.max_context and (kind == FULL or context == 1000):
                yield _attention(model, streams, context, kind, name)


def _dense(model: TritonModel, tokens: int) -> Iterator[Piece]:
    config, layers, eps = model.config, model.weights.layers, model.config.rms_norm_eps
    x, seen = _normal(model, tokens, config.hidden_size), _normal(model, tokens, layers[0].out.shape[1])
    qkv = _normal(model, tokens, len(layers[0].qkv))

    def run_qkv() -> None:
        for layer in layers:
            product(x, layer.qkv, qkv, bias=layer.qkv_bias, norm=layer.attention_norm, eps=eps)

    def run_out() -> None:
        for layer in layers:
            product(seen, layer.out, x, bias=layer.out_bias, add=True)

    yield f"norm, QKV, T = {tokens}", run_qkv, len(layers), layers[0].qkv.nbytes
    yield f"output, residual, T = {tokens}", run_out, len(layers), layers[0].out.nbytes


def _unembedding(model: TritonModel, rows: int) -> Piece:
    config, weights = model.config, model.weights
    x = _normal(model, rows, config.hidden_size)
    logits = torch.empty(rows, config.vocab_size, device=model.device)

    def run() -> None:
        product(x, weights.unembedding, logits, norm=weights.norm, eps=config.rms_norm_eps)

    return f"norm, unembedding, N = {rows}", run, 1, weights.unembedding.nbytes + logits.nbytes


def _few(model: TritonModel, tokens: int) -> Iterator[Piece]:
    config, layers, eps = model.config, model.weights.layers, model.config.rms_norm_eps
    used, limit = config.experts_per_token, config.swiglu_limit
    x = _normal(model, tokens, config.hidden_size)
    normed = prescaled(_normal(model, tokens, config.hidden_size))
    chosen, shares = _chosen(model, tokens)
    written, arrivals = (chosen.clone(), shares.clone()), torch.zeros_like(chosen[:, 0])
    inner = prescaled(_normal(model, tokens * used, config.intermediate_size))
    up, back = _active_bytes(model, chosen)

    def run_router() -> None:
        for layer in layers:
            gate = (layer.experts_norm, layer.gate, layer.gate_bias)
            router(x, *gate, arrivals, *written, normed, eps)

    def run_up() -> None:
        for layer in layers:
            experts_few.gate_up(normed, chosen, layer.mlp1, inner, limit)

    def run_down() -> None:
        for layer in layers:
            experts_few.down(inner, chosen, shares, layer.mlp2, x)

    yield f"router, T = {tokens}", run_router, len(layers), layers[0].gate.nbytes
    yield f"gate, up of few, T = {tokens}", run_up, len(layers), up
    yield f"down of few, T = {tokens}", run_down, len(layers), back


def _many(model: TritonModel, tokens: int) -> Iterator[Piece]:
    config, layers = model.config, model.weights.layers
    used, limit = config.experts_per_token, config.swiglu_limit
    x, normed = (_normal(model, tokens, width) for width in (config.hidden_size, padded(config.hidden_size)))
    inner = _normal(model, tokens * used, padded(config.intermediate_size))
    outer = _normal(model, tokens * used, config.hidden_size)
    chosen, shares = _chosen(model, tokens)
    order, starts = expert_order.sort(chosen, config.num_experts)
    up, back = _active_bytes(model, chosen)

    rows, written = _normal(model, tokens, config.hidden_size), (chosen.clone(), shares.clone())

    def run_choice() -> None:
        """The router and the choice of experts, as in the network."""
        for layer in layers:
            parts = gate_parts(rows, layer.gate)
            if expert_order.at_once(tokens, config.num_experts):
                expert_order.choose_and_sort(parts, layer.gate_bias, used)
            else:
                choose(parts, layer.gate_bias, *written)
                expert_order.sort(written[0], config.num_experts)

    def run_up() -> None:
        for layer in layers:
            experts_many.gate_up(normed, layer.mlp1, order, starts, inner, limit, tiles=model.tiles)

    def run_down() -> None:
        for layer in layers:
            experts_many.down(inner, layer.mlp2, order, starts, shares, outer, tiles=model.tiles)

    def run_sum() -> None:
        for _ in layers:
            experts_many.combine(outer, x)

    yield f"choice and sort, T = {tokens}", run_choice, len(layers), layers[0].gate.nbytes
    yield f"gate, up of many, T = {tokens}", run_up, len(layers), up
    yield f"down of many, T = {tokens}", run_down, len(layers), back
    yield f"sum over experts, T = {tokens}", run_sum, len(layers), outer.nbytes + 2 * x.nbytes


def _chosen(model: TritonModel, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random experts for each token, and their shares."""
    logits = torch.randn(1, tokens, model.config.num_experts, device=model.device)
    shares = torch.empty(tokens, model.config.experts_per_token, device=model.device)
    chosen = torch.empty_like(shares, dtype=torch.int32)
    choose(logits, torch.zeros_like(logits[0, 0]), chosen, shares)
    return chosen, shares


def _active_bytes(model: TritonModel, chosen: torch.Tensor) -> tuple[float, float]:
    """Bytes of both matrices of the chosen experts of one layer, without biases."""
    share = len(set(chosen.flatten().tolist())) / model.config.num_experts
    layer = model.weights.layers[0]
    up, back = (share * (each.words.nbytes + each.scales.nbytes) for each in (layer.mlp1, layer.mlp2))
    return up, back


def _attention(model: TritonModel, streams: int, context: int, kind: int, name: str) -> Piece:
    config, layers = model.config, model.weights.layers
    load = Decode(model, streams, context)
    batch, window = load.batch(0), config.window(kind)
    qkv = _normal(model, streams, len(layers[0].qkv))
    out = _normal(model, streams, config.num_heads * config.head_dim)
    splits = 1 if window else model.splits(streams)
    mine = range(kind, len(layers), 2)

    def run() -> None:
        for n in mine:
            keys, values = load.cache.of(n)
            first_page = load.cache.first_page(n)
            inputs = (qkv, model.turn, keys, values, first_page, layers[n].sinks, batch, kind, window)
            attention_decode.attend(*inputs, out, splits, arrivals=model.split_arrivals)

    seen = streams * min(window or context + 1, context + 1)
    dtype = model.full_dtype if kind == FULL else model.dtype
    nbytes = float(seen * 2 * config.num_kv_heads * config.head_dim * dtype.itemsize)
    return f"{name} attention, {streams} x {context} in {splits}", run, max(1, len(mine)), nbytes


def _normal(model: TritonModel, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=model.device).to(model.dtype)


# Other tiles: the best ones should be put into the kernels' files.


Tile = dict[str, int]


def tune(model: TritonModel) -> list[dict[str, Any]]:
    """Time kernels with other tiles: the rows of the three best ones of each, and of the current one."""
    rows = []
    for (name, run, count, _), tile, choices in candidates(model):
        now = dict(tile)
        tried = []
        for values in itertools.product(*choices.values()):
            tile.update(zip(choices, values, strict=True))
            try:
                tried.append((median_seconds(graph_of(run), 10) / count, dict(tile)))
            except Exception as error:  # too much shared memory, or too many registers
                print(f"{name} {dict(tile)}: {str(error).splitlines()[0]}")
                torch.cuda.synchronize()
        tile.update(now)
        tried.append((median_seconds(graph_of(run), 10) / count, {**now, "set": True}))
        best = sorted(tried, key=lambda each: each[0])
        rows += [
            {"kernel": name, "us": round(1e6 * seconds, 2), "tile": str(tile)}
            for seconds, tile in (*best[:3], tried[-1])
        ]
    return rows


def candidates(model: TritonModel) -> Iterator[tuple[Piece, Tile, dict[str, tuple[int, ...]]]]:
    """What to try: a piece, its tile, and other values for some sizes of the tile."""
    row, small = dense.ROW_TILE, dense.SMALL_TILE
    along: dict[str, tuple[int, ...]] = {"BK": (256, 512)}
    stages: dict[str, tuple[int, ...]] = {"BK": (64, 128, 256), "num_stages": (3, 5)}
    if model.dense == "int8":
        row, small = dense_int8.ROW_TILE, dense_int8.SMALL_TILE
        along, stages = {"BG": (4, 8, 16)}, {"num_stages": (3, 6, 8)}
    few: dict[str, tuple[int, ...]] = {"BN": (1, 2, 4, 8), "num_warps": (1, 2)}
    many = {"BN": (64, 128), "num_warps": (4, 8), "num_stages": (2, 3, 4)}

    qkv, output = _dense(model, 1)
    yield qkv, row, few | along
    yield output, row, few | along
    yield _unembedding(model, 1), row, few | along
    yield next(_dense(model, 8)), small, few | stages | {"BN": (16, 32)}
    routing, gate_up, down = _few(model, 1)
    yield routing, ROUTER_TILE, {"BK": (256, 512, 1024), "num_warps": (1, 2, 4)}
    yield gate_up, experts_few.GATE_UP_TILE, few | {"BW": (128, 256)}
    yield down, experts_few.DOWN_TILE, few | {"BW": (128, 256)}
    for context in (1000, min(131000, model.config.max_context - 1)):
        attention = _attention(model, 1, context, FULL, "full")
        choices = {"BN": (32, 64, 128), "num_warps": (2, 4), "num_stages": (4, 5, 7)}
        yield attention, attention_decode.TILE, choices
    for tokens in (64, 2048):
        _choice, gate_up, down, _sum = _many(model, tokens)
        pairs, experts = tokens * model.config.experts_per_token, model.config.num_experts
        rows = experts_many.usual_rows(pairs, experts)
        yield gate_up, model.tiles.gate_up[rows], many
        yield down, model.tiles.down[rows], many
