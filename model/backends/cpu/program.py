"""Programs for the native library: the structures of native/abi.h, field by field, and the network as a
list of them.

A program is built once for a maximum number of tokens, and then run for every batch up to it; the values that
differ between steps are in `Step`.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from typing import ClassVar

ABI_VERSION = 4
PAGE_SIZE = 32

MXFP4, INT8, BF16, HIGH, LOW = range(5)
"""Formats of packed weights; the last two are the halves of INT8."""

ALL, SAMPLED, WHOLE = range(3)
"""The rows of a step that an instruction computes."""

SumOverRanks = ctypes.CFUNCTYPE(c_int32, c_int64)
"""The function that `AddUp` calls: number of rows of the step → 0, or another number to end the step."""


class Rows(Structure):
    _fields_: ClassVar = [
        ("codes", c_void_p),
        ("sums", c_void_p),
        ("scales", c_void_p),
        ("blocks", c_void_p),
    ]


class Embed(Structure):
    _fields_: ClassVar = [
        ("table", c_void_p),
        ("x", c_void_p),
        ("width", c_int32),
        ("vocabulary", c_int32),
        ("first", c_int32),
        ("all", c_int32),
    ]


class Norm(Structure):
    _fields_: ClassVar = [
        ("x", c_void_p),
        ("scale", c_void_p),
        ("normed", c_void_p),
        ("rows", Rows),
        ("width", c_int32),
        ("which", c_int32),
        ("epsilon", c_float),
    ]


class Quantise(Structure):
    _fields_: ClassVar = [("values", c_void_p), ("rows", Rows), ("width", c_int32)]


class Dense(Structure):
    _fields_: ClassVar = [
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("rows", Rows),
        ("values", c_void_p),
        ("out", c_void_p),
        ("format", c_int32),
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("which", c_int32),
        ("add", c_int32),
    ]


class Store(Structure):
    _fields_: ClassVar = [
        ("qkv", c_void_p),
        ("frequencies", c_void_p),
        ("layer", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("concentration", c_float),
        ("query_scale", c_float),
    ]


class Attend(Structure):
    _fields_: ClassVar = [
        ("qkv", c_void_p),
        ("sinks", c_void_p),
        ("out", c_void_p),
        ("layer", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("window", c_int32),
    ]


class Assignment(Structure):
    _fields_: ClassVar = [
        ("chosen", c_void_p),
        ("shares", c_void_p),
        ("starts", c_void_p),
        ("pairs", c_void_p),
        ("experts", c_int32),
        ("used", c_int32),
        ("first", c_int32),
        ("own", c_int32),
    ]


class Route(Structure):
    _fields_: ClassVar = [("logits", c_void_p), ("assignment", Assignment)]


class Experts(Structure):
    _fields_: ClassVar = [
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("rows", Rows),
        ("out", c_void_p),
        ("assignment", Assignment),
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("by_token", c_int32),
    ]


class Activate(Structure):
    _fields_: ClassVar = [
        ("values", c_void_p),
        ("rows", Rows),
        ("width", c_int32),
        ("used", c_int32),
        ("limit", c_float),
        ("alpha", c_float),
    ]


class Combine(Structure):
    _fields_: ClassVar = [
        ("values", c_void_p),
        ("shares", c_void_p),
        ("x", c_void_p),
        ("width", c_int32),
        ("used", c_int32),
    ]


class Decide(Structure):
    _fields_: ClassVar = [("vocabulary", c_int32), ("candidates", c_int32), ("tail", c_float)]


class Rescore(Structure):
    _fields_: ClassVar = [
        ("normed", c_void_p),
        ("table", c_void_p),
        ("width", c_int32),
        ("vocabulary", c_int32),
        ("candidates", c_int32),
    ]


class Clear(Structure):
    _fields_: ClassVar = [("x", c_void_p), ("width", c_int32)]


class AddUp(Structure):
    _fields_: ClassVar = [("add_up", SumOverRanks)]


class Instruction(Structure):
    _fields_: ClassVar = [("opcode", c_int32), ("operands", c_void_p), ("nanoseconds", c_int64)]


class Step(Structure):
    _fields_: ClassVar = [
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("samples", c_void_p),
        ("starts", c_void_p),
        ("page_table", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("logits", c_void_p),
        ("temperatures", c_void_p),
        ("prompts", c_void_p),
        ("num_pages", c_int64),
        ("num_tokens", c_int32),
        ("num_sequences", c_int32),
        ("num_samples", c_int32),
        ("table_width", c_int32),
    ]


OPCODES: tuple[type[Structure], ...] = (
    Embed,
    Norm,
    Quantise,
    Dense,
    Store,
    Attend,
    Route,
    Experts,
    Activate,
    Combine,
    Decide,
    Rescore,
    Clear,
    AddUp,
)
"""The operands of each opcode, in the order of abi.h's enum."""

STRUCTS: tuple[type[Structure], ...] = (*OPCODES, Instruction, Step)


class Program:
    """Instructions in the form the library runs: an array, and the operands it points to."""

    def __init__(self, operands: list[Structure]):
        self.operands = operands  # the array holds only their addresses
        self.array = (Instruction * len(operands))(
            *(Instruction(OPCODES.index(type(each)), ctypes.addressof(each), 0) for each in operands)
        )

    def __len__(self) -> int:
        return len(self.operands)

    def seconds(self) -> dict[str, float]:
        """Time spent in each kind of instruction since the program was built."""
        total: dict[str, float] = {}
        for each in self.array:
            name = OPCODES[each.opcode].__name__
            total[name] = total.get(name, 0.0) + each.nanoseconds / 1e9
        return total
