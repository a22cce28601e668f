"""A step of a CPU model as a file, so that another processor or a sanitizer can run it: native/run_step.cpp.

All memory that the step touches is laid end to end; what points into it is told as a distance from the
beginning.  The structures are those of native/abi.h, which are the same on all 64-bit little-endian machines.
"""

import ctypes
from collections.abc import Iterator
from ctypes import Structure, c_void_p
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from model.backends.cpu.cpu_model import CpuModel
from model.backends.cpu.program import Instruction, Step

LINE = 64


class Memory:
    """Pieces of this process's memory, and where they lie in the file."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces: dict[int, tuple[int, int]] = {}  # address → size, place in the file
        self.pointers: list[int] = []  # places in the file

    def add(self, address: int, size: int) -> int:
        """Add memory.  Returns its offset in the file."""
        if address in self.pieces and self.pieces[address][0] >= size:
            return self.pieces[address][1]
        place = len(self.data)
        self.data += ctypes.string_at(address, size)
        self.data += bytes(-len(self.data) % LINE)
        self.pieces[address] = size, place
        return place

    def add_structure(self, structure: Structure) -> int:
        place = self.add(ctypes.addressof(structure), ctypes.sizeof(structure))
        self.relocate(structure, place)
        return place

    def relocate(self, structure: Structure, place: int) -> None:
        """Replace the pointers in the structure at `place` by offsets."""
        for name, kind in structure._fields_:
            at = place + getattr(type(structure), name).offset
            value = getattr(structure, name)
            if isinstance(value, Structure):
                self.relocate(value, at)
            elif kind is c_void_p and value is not None:
                self.data[at : at + 8] = self.distance(value).to_bytes(8, "little")
                self.pointers.append(at)

    def distance(self, address: int) -> int:
        for first, (size, place) in self.pieces.items():
            if first <= address < first + size:
                return place + address - first
        raise AssertionError(f"the step points to {address:#x}, which is not in the file")


def write(path: Path, model: CpuModel, step: Step, held: list[Tensor], result: Tensor) -> None:
    """Write everything that the step needs.

    held    the tensors that `step` points to, its cache's included
    result  which of them is to be written out afterwards
    """
    memory = Memory()
    for tensor in (*_tensors(model.weights), *_tensors(vars(model.scratch)), *held):
        if tensor.nbytes:
            memory.add(tensor.data_ptr(), tensor.nbytes)
    array = model.program.array
    program = memory.add(ctypes.addressof(array), ctypes.sizeof(array))
    for operands in model.program.operands:
        memory.add_structure(operands)
    for n, instruction in enumerate(array):
        memory.relocate(instruction, program + n * ctypes.sizeof(Instruction))
    step_place = memory.add_structure(step)
    place = memory.distance(result.data_ptr())
    header = [len(memory.data), len(memory.pointers), program, len(array), step_place, place, result.nbytes]
    with path.open("wb") as file:
        file.write(np.array(header + memory.pointers, dtype="<i8").tobytes())
        file.write(memory.data)


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors in dataclasses, dictionaries and sequences of them."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
