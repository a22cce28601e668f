"""Runs single instructions of the CPU kernels on numpy arrays, and computes the expected bits in numpy."""

import ctypes

import numpy as np
import pytest
import torch

from model.backends.cpu.library import NativeLibraryMissing, choose_isa, isas, load
from model.backends.cpu.program import BF16, HIGH, MXFP4, Dense, Program, Quantise, Rows, Step

try:
    load()  # built here if need be, outside any test's time limit
except NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

ISAS = ("amx", "avx512", "avx2", "portable")
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


class Machine:
    """The library with some threads and an instruction set.  `available` lists those that the processor
    supports.
    """

    available = staticmethod(lambda: isas(load()))

    def __init__(self, isa: str, threads: int = 1):
        self.library = load()
        self.handle = self.library.gptoss_open(threads, choose_isa(self.library, isa).encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.gptoss_close(self.handle)

    def run(self, *operands: ctypes.Structure, **fields: int) -> None:
        program = Program(list(operands))
        step = Step(**fields)
        assert self.library.gptoss_run(self.handle, program.array, len(program), ctypes.byref(step)) == 0

    def pack(
        self, format: int, weights, outputs: int, inputs: int, matrices: int = 1, paired: bool = False
    ) -> np.ndarray:
        """`weights`: (blocks, scales) for MXFP4, else bf16 bits [outputs, inputs] as uint16."""
        out = np.full(
            matrices * self.library.gptoss_packed_bytes(format, outputs, inputs), 0xAA, dtype=np.uint8
        )
        if format == MXFP4:
            blocks, scales = (np.ascontiguousarray(part) for part in weights)
            self.library.gptoss_pack_mxfp4(
                self.handle,
                blocks.ctypes.data,
                scales.ctypes.data,
                matrices,
                outputs,
                inputs,
                paired,
                out.ctypes.data,
            )
        else:
            weights = np.ascontiguousarray(weights)
            self.library.gptoss_pack_dense(
                self.handle, format, weights.ctypes.data, outputs, inputs, out.ctypes.data
            )
        return out

    def multiply(
        self, format: int, packed: np.ndarray, x: np.ndarray, outputs: int, bias=None, add_to=None, prompt=0
    ) -> np.ndarray:
        """x [T, inputs] @ weights.T + bias, through Quantise and Dense.

        prompt  the first so many tokens are a prompt's, whose activations have 8 bits
        """
        tokens, inputs = x.shape
        padded = outputs + -outputs % 32
        out = np.full((tokens, padded), np.nan, dtype=np.float32)
        if add_to is not None:
            out[:, :outputs] = add_to
        if bias is not None:
            bias = np.pad(bias.astype(np.float32), (0, padded - outputs))
        codes = np.zeros((tokens, 4 * inputs), dtype=np.int8)
        sums = np.zeros((tokens, inputs // 32), dtype=np.int32)
        scales = np.full(tokens, np.nan, dtype=np.float32)
        blocks = np.full((tokens, inputs // 32), np.nan, dtype=np.float32)
        rows = Rows(*(array.ctypes.data for array in (codes, sums, scales, blocks)))
        x = np.ascontiguousarray(x, dtype=np.float32)
        operands = [] if format == BF16 else [Quantise(x.ctypes.data, rows, inputs)]
        where = (
            packed.ctypes.data,
            None if bias is None else bias.ctypes.data,
            rows,
            x.ctypes.data,
            out.ctypes.data,
        )
        operands.append(Dense(*where, format, inputs, outputs, 0, add_to is not None))
        positions, starts = np.arange(tokens, dtype=np.int64), np.array([0, tokens], np.int32)
        prompts, table = np.array([prompt], np.int32), np.zeros((2, 1, 1), np.int32)
        self.library.gptoss_prompt_bits(self.handle, 8)
        arrays = {"positions": positions, "starts": starts, "prompts": prompts, "page_table": table}
        pointers = {name: array.ctypes.data for name, array in arrays.items()}
        self.run(*operands, num_tokens=tokens, num_sequences=1, table_width=1, **pointers)
        return out[:, :outputs]


def bf16_bits(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.asarray(x, dtype=np.float32)).bfloat16().view(torch.uint16).numpy()


def from_bf16_bits(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of x as int64 codes and float32 scales: x = code * scale."""
    top = np.abs(x).max(axis=1, keepdims=True).astype(np.float32)
    live = top >= np.float32(1e-30)
    scale = np.where(live, top / np.float32(32512), np.float32(0)).astype(np.float32)
    inverse = np.where(live, np.float32(32512) / np.where(live, top, np.float32(1)), np.float32(0)).astype(
        np.float32
    )
    return np.rint(x.astype(np.float32) * inverse).astype(np.int64), scale


def quantised_coarse(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of x as int64 codes of 8 bits, and float32 scales of each 32: x = code * scale."""
    grouped = x.astype(np.float32).reshape(len(x), -1, 32)
    top = np.abs(grouped).max(axis=2)
    live = top >= np.float32(1e-30)
    scales = np.where(live, top / np.float32(127), np.float32(0)).astype(np.float32)
    inverse = np.where(live, np.float32(127) / np.where(live, top, np.float32(1)), np.float32(0)).astype(
        np.float32
    )
    return np.rint(grouped * inverse[:, :, None]).astype(np.int64).reshape(x.shape), scales


def coarse_product(x: np.ndarray, weights: np.ndarray, scales: np.ndarray, factor: float) -> np.ndarray:
    """Whole sums of 32 products, times the row's scale, rounded, times the weights' and added, rounded once.

    weights, scales  [outputs, inputs] whole numbers, [outputs, inputs / 32] float32
    """
    codes, blocks = quantised_coarse(x)
    total = np.zeros((len(x), len(weights)), dtype=np.float32)
    for b in range(blocks.shape[1]):
        columns = slice(32 * b, 32 * b + 32)
        sums = (codes[:, columns] @ weights[:, columns].T).astype(np.float32) * blocks[:, b : b + 1]
        exact = sums.astype(np.longdouble) * scales[:, b] + total
        total = exact.astype(np.float32)
    return total * np.float32(factor)


def codes_of(blocks: np.ndarray) -> np.ndarray:
    """MXFP4 blocks [outputs, groups, 16] as whole numbers [outputs, groups, 32]: twice the e2m1 values."""
    nibbles = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:2], 32)
    return (2 * E2M1[nibbles]).astype(np.int64)


def mxfp4_product(x: np.ndarray, blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whole sums of 32 products, each times its power of two, added up in float32 in the order of columns."""
    codes, scale = quantised(x)
    total = np.zeros((len(x), len(blocks)), dtype=np.float32)
    powers = (scales.astype(np.uint32) << 23).view(np.float32)
    weights = codes_of(blocks)
    for b in range(blocks.shape[1]):
        sums = codes[:, 32 * b : 32 * b + 32] @ weights[:, b].T
        assert abs(sums).max() < 1 << 24
        total = total + sums.astype(np.float32) * powers[:, b]
    return total * (scale * np.float32(0.5))


def int8_weights(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bf16 weights [outputs, inputs] as int64 codes and float32 scales [outputs, groups of 64]."""
    weights = from_bf16_bits(bits)
    outputs, inputs = weights.shape
    grouped = np.pad(weights, ((0, 0), (0, -inputs % 64))).reshape(outputs, -1, 64)
    scales = from_bf16_bits(bf16_bits(np.abs(grouped).max(axis=2) / np.float32(127)))
    inverse = np.where(scales > 0, np.float32(1) / np.where(scales > 0, scales, np.float32(1)), np.float32(0))
    codes = np.clip(np.rint(grouped * inverse[:, :, None].astype(np.float32)), -127, 127)
    return codes.astype(np.int64).reshape(outputs, -1)[:, :inputs], scales


def half_weights(bits: np.ndarray, format: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of HIGH or LOW: together they are the int8 weights."""
    codes, scales = int8_weights(bits)
    if format == HIGH:
        return 2 * ((codes + 128) >> 4) - 15, scales * np.float32(8)
    return 2 * ((codes + 128) & 15) - 16, scales * np.float32(0.5)


def int8_product(x: np.ndarray, bits: np.ndarray) -> np.ndarray:
    return group_product(x, *int8_weights(bits))


def group_product(x: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whole sums of 64 products, each times its scale, added up in float32 in the order of columns."""
    codes, scale = quantised(x)
    total = np.zeros((len(x), len(weights)), dtype=np.float32)
    for group in range(scales.shape[1]):
        columns = slice(64 * group, 64 * group + 64)
        sums = codes[:, columns] @ weights[:, columns].T
        total = total + sums.astype(np.float32) * scales[:, group]
    return total * scale
