"""The memory of one launch of a kernel, and which program has accessed which byte of it.

On a GPU the programs of a launch run in any order and at the same time.  So no program may access what
another one writes, before or after, unless both accesses are atomic.  Within a program, other threads may not
see a store before a barrier (`tl.debug_barrier`).  Therefore a launch is divided into *eras*: each program
and each barrier begins a new one.  The era of the last store to each place is recorded.  Two accesses are
correct if both only read, or if they are in different eras of the same program.

They are also correct if the later program has acquired the earlier era.  An atomic operation releases all
eras that its program has ended with a barrier, and those that it has acquired itself, to all programs that
acquire at the same address later.  A relaxed operation does neither (PTX manual, "Memory consistency model").

    Argument   the extent of one tensor: accesses through its pointer must stay inside
    Region     overlapping arguments, as one piece of memory
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor

Program = tuple[int, ...]
"""Position x, y, z of a program in the grid."""

Place = tuple[tuple[str, int, str], ...]
"""File, line and function of an access, the innermost first."""

NOBODY, SEVERAL = 0, -1
"""Values instead of an era; eras are counted from 1."""

_NORESERVE = 0x4000
"""A flag of mmap(2): do not reserve memory."""


def lazy_zeros(size: int) -> mmap.mmap:
    """Zeros that take memory only where they are written to; there may be more than the machine has."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return mmap.mmap(-1, size, flags=flags | (_NORESERVE if sys.platform == "linux" else 0))


class Finding(AssertionError):
    """An error of a kernel that a GPU would show."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor that is an argument of a launch: the bytes [begin, end) from its first to its last element.

    This is the extent of the view, not of its storage.  The storage may be larger, for instance if the view
    is one layer of a cache; an access to another layer is an error too.
    """

    name: str
    begin: int
    end: int
    width: int
    kind: str

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Argument:
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        begin, width = tensor.data_ptr(), tensor.element_size()
        bytes_in_all = (last + 1) * width if tensor.numel() else 0
        kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        return cls(name, begin, begin + bytes_in_all, width, kind)

    def relative(self, address: int) -> str:
        """A description of `address`, relative to this tensor."""
        if address < self.begin:
            where = f"{self.begin - address} bytes before the beginning"
        elif address >= self.end:
            where = f"{address - self.end} bytes behind the end"
        else:
            where = f"{address - self.begin} bytes inside"
        return f"{where} of `{self.name}`, {self.kind}"


@dataclass(frozen=True, slots=True)
class Access:
    """One load, store or atomic operation of one program.

    addresses  of the lanes whose mask is true, in the order of lanes
    lanes      the numbers of these lanes, and the number of all lanes; None: all
    width      bytes of an element
    heard      eras of other programs that this one has acquired before
    """

    verb: str
    addresses: np.ndarray
    lanes: np.ndarray | None
    width: int
    era: int
    program: Program
    place: Place
    heard: frozenset[int] = frozenset()


@dataclass(slots=True)
class Region:
    """Bytes [begin, end), in units of the smallest element of its arguments.

    stores, atomics  [units] era of the last store and of the last atomic operation; allocated at the first
    one
    """

    begin: int
    end: int
    unit: int
    arguments: list[Argument]
    loads: list[Access] = field(default_factory=list)
    stores: np.ndarray | None = None
    atomics: np.ndarray | None = None

    def units(self, access: Access) -> np.ndarray:
        first = (access.addresses - np.uint64(self.begin)).astype(np.int64) // self.unit
        if access.width <= self.unit:
            return first
        return (first[:, None] + np.arange(access.width // self.unit)).ravel()

    def history(self) -> np.ndarray:
        """A new array [units] of eras."""
        units = -(-(self.end - self.begin) // self.unit)
        return np.frombuffer(lazy_zeros(4 * units), np.int32)


class Memory:
    """All arguments of one launch of `kernel`.  All methods may raise Finding."""

    def __init__(self, kernel: str, arguments: Iterable[Argument]):
        self.kernel = kernel
        self.arguments = list(arguments)
        self._regions = list(_regions(self.arguments))
        self._programs: list[Program] = [()]  # the program of each era; there is no era 0
        self._first = 0  # first era of the current program
        self._released: dict[int, frozenset[int]] = {}  # address of an atomic operation → released eras
        self.heard: frozenset[int] = frozenset()

    @property
    def era(self) -> int:
        return len(self._programs) - 1

    @property
    def program(self) -> Program:
        return self._programs[-1]

    def begin(self, program: Program) -> None:
        """A program begins."""
        self._programs.append(program)
        self._first, self.heard = self.era, frozenset()

    def barrier(self) -> None:
        """The program's threads wait for each other: now all may see what each has stored."""
        self._programs.append(self.program)

    def load(self, access: Access, argument: Argument | None) -> None:
        if (region := self._within(access, argument)) is None:
            return
        if region.stores is not None:
            at = region.units(access)
            self._refuse(
                access, region, at[region.stores[at] == access.era], "what it has itself just stored"
            )
        region.loads.append(access)

    def store(self, access: Access, argument: Argument | None, values: np.ndarray) -> None:
        """values: the stored values, in the order of the addresses"""
        if (region := self._within(access, argument)) is None:
            return
        at = region.units(access)
        if region.stores is None:
            region.stores = region.history()
        before = region.stores[at]
        self._refuse(access, region, at[before == access.era], "what it has itself just stored")
        self._refuse(access, region, at[self._others(before, access)], "what another program stores")
        if region.atomics is not None:
            others = self._others(region.atomics[at], access)
            self._refuse(access, region, at[others], "what another program changes atomically")
        self._once(access, region, values)
        for load in reversed(region.loads):
            if load.era != access.era:
                break
            if not _same_lanes(load, access):
                both = np.intersect1d(at, region.units(load))
                self._refuse(access, region, both, "what another of its lanes loads")
        region.stores[at] = access.era

    def atomic(self, access: Access, argument: Argument | None, acquires: bool, releases: bool) -> None:
        if (region := self._within(access, argument)) is None:
            return
        for address in access.addresses.tolist():
            before = self._released.get(address, frozenset())
            if acquires:
                self.heard |= before
            if releases:
                self._released[address] = before | self.heard | frozenset(range(self._first, self.era))
        at = region.units(access)
        if region.stores is not None:
            others = self._others(region.stores[at], access)
            self._refuse(access, region, at[others], "what another program stores")
        if region.atomics is None:
            region.atomics = region.history()
        before = region.atomics[at]
        region.atomics[at] = np.where(self._others(before, access), SEVERAL, access.era)

    def finish(self) -> None:
        """At the end of the launch: check that no load read what another program wrote before or later."""
        for region in self._regions:
            for history, what in (
                (region.stores, "what another program stores"),
                (region.atomics, "what another program changes atomically"),
            ):
                if history is None:
                    continue
                for load in region.loads:
                    at = region.units(load)
                    self._refuse(load, region, at[self._others(history[at], load)], what)

    def _within(self, access: Access, argument: Argument | None) -> Region | None:
        """The region that contains the whole access; None if the access has no lanes.

        argument  the tensor from whose pointer the addresses were made, if known
        """
        if not access.addresses.size:
            return None
        low, high = int(access.addresses.min()), int(access.addresses.max())
        if argument is not None and not argument.begin <= low <= high <= argument.end - access.width:
            outside = low if low < argument.begin else high
            raise self._finding(access, outside, argument, "out of bounds")
        for region in self._regions:
            if region.begin <= low <= high <= region.end - access.width:
                break
        else:
            nearest = min(self.arguments, key=lambda a: max(a.begin - low, high - a.end), default=None)
            raise self._finding(access, low, nearest, "out of bounds")
        if int(np.bitwise_or.reduce(access.addresses)) & (access.width - 1):
            odd = access.addresses[access.addresses & np.uint64(access.width - 1) != 0]
            raise self._finding(access, int(odd[0]), argument or region.arguments[0], "not aligned")
        return region

    def _others(self, eras: np.ndarray, access: Access) -> np.ndarray:
        """Whether each of `eras` belongs to another program, and has not been acquired."""
        others = eras != NOBODY
        for era in np.unique(eras[others]):
            if era != SEVERAL and (self._programs[era] == access.program or int(era) in access.heard):
                others &= eras != era
        return others

    def _once(self, access: Access, region: Region, values: np.ndarray) -> None:
        """Check that lanes that store to the same address store the same value, because their order is
        undefined.
        """
        order = np.argsort(access.addresses, kind="stable")
        sorted_, stored = access.addresses[order], np.broadcast_to(values, access.addresses.shape)[order]
        bits = stored.view(f"u{stored.itemsize}") if stored.dtype != bool else stored
        twice = (sorted_[1:] == sorted_[:-1]) & (bits[1:] != bits[:-1])
        if twice.any():
            address = int(sorted_[1:][twice][0])
            raise self._finding(access, address, self._nearest(region, address), "lanes disagree")

    def _refuse(self, access: Access, region: Region, at: np.ndarray, what: str) -> None:
        if at.size:
            address = region.begin + int(at[0]) * region.unit
            raise self._finding(access, address, self._nearest(region, address), "race", what)

    def _nearest(self, region: Region, address: int) -> Argument:
        inside = (a for a in region.arguments if a.begin <= address < a.end)
        return next(inside, region.arguments[0])

    def _finding(
        self, access: Access, address: int, nearest: Argument | None, kind: str, what: str = ""
    ) -> Finding:
        lines = (f"{Path(file).name}:{line} in {function}" for file, line, function in access.place)
        seen = nearest.relative(address) if nearest else "a launch without tensors"
        verb = {"load": "loads", "store": "stores", "atomic": "changes"}[access.verb]
        return Finding(
            f"{kind}: {self.kernel}, program {access.program}, {verb} {what or f'{access.width} bytes'}:"
            f" {seen}; at {' from '.join(lines)}"
        )


def _regions(arguments: list[Argument]) -> Iterator[Region]:
    """The regions: overlapping arguments are one."""
    ordered = sorted((a for a in arguments if a.end > a.begin), key=lambda a: a.begin)
    starts = [0]
    furthest = 0
    for n, argument in enumerate(ordered):
        if n and argument.begin >= furthest:
            starts.append(n)
        furthest = max(furthest, argument.end)
    for first, last in pairwise([*starts, len(ordered)]):
        group = ordered[first:last]
        if group:
            unit = min(argument.width for argument in group)
            yield Region(group[0].begin, max(argument.end for argument in group), unit, group)


def _same_lanes(one: Access, other: Access) -> bool:
    """Whether each lane accesses the same address in both."""
    if not np.array_equal(one.addresses, other.addresses):
        return False
    if one.lanes is None or other.lanes is None:
        return one.lanes is other.lanes
    return np.array_equal(one.lanes, other.lanes)
