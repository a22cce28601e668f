"""Finds errors of kernels in Triton's interpreter that only a GPU would show.

The interpreter runs the programs of a launch one after the other, allows any address, and completes each
operation before the next.  On a GPU, an address outside of an allocation is an "illegal memory access", and
programs that use the same memory give different results in each run.  Under `watching`, these errors raise a
`Finding`, which names the kernel, its line, the program and the address:

    out of bounds    a lane that is not masked off is outside the tensor from whose pointer its address came
    not aligned      an address is not a multiple of the element's size
    race             two programs of a launch access a byte, one of them writes, not both atomically, and the
                     later one has not acquired what the earlier one released; or one program stores, and
                     accesses the same bytes again before a barrier
    lanes disagree   lanes of one store write different values to the same address

Tensors of torch.empty are filled with NaN or the largest integer, so that reading them without writing
changes the result.  Programs run in the order of their numbers, in reverse, or shuffled: the result must be
the same.

    with watching() as watch:
        ...                         # launches
    assert "model.backends.triton.kernels.norm._norm_kernel" in watch.ran
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton
from torch import Tensor
from triton.runtime import interpreter

from tests.tools.sanitizer.sanitizer_memory import Access, Argument, Finding, Memory, Place, Program

Choice = Callable[[Program], Sequence[Program]]
"""Selects programs of a grid."""

ORDERS = ("numbered", "reversed", "shuffled")

_ORDERS = ("ACQUIRE", "RELEASE", "ACQUIRE_RELEASE", "RELAXED")
"""Memory orders of atomic operations: Triton's `sem`."""

_TRITON = str(Path(triton.__file__).parent)
_POINTER_OPERATIONS = (
    "create_addptr", "create_splat", "create_expand_dims", "create_broadcast", "create_reshape",
    "create_trans", "create_bitcast",
)  # fmt: skip
"""Operations that make a pointer from a pointer."""


class Watch:
    """The launches within one `watching`.

    ran  names of all functions that ran: kernels, and functions that these call
    """

    def __init__(self, order: str, seed: int, programs: Choice | None):
        self.ran: set[str] = set()
        self._order = order
        self._random = random.Random(seed)
        self._programs = programs
        self._memory = Memory("", [])
        self._grid: Program = ()
        self._chosen: list[Program] | None = None
        self._turns: Iterator[Program] = iter(())
        self._atomic = False
        self._prepared: set[str] = set()  # files whose functions this launch has called

    def launch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def launched(executor: Any, *operands: Any, **named: Any) -> Any:
            arguments = dict(zip(executor.arg_names, operands, strict=False)) | named
            self.ran.add(_name(executor.fn))
            self._prepared.clear()
            self._memory = Memory(
                executor.fn.__name__,
                [Argument.of(name, value) for name, value in arguments.items() if isinstance(value, Tensor)],
            )
            self._grid = (*executor.grid, 1, 1)[:3]
            if self._programs is not None:
                self._chosen = list(self._programs(self._grid))
                executor.grid = (len(self._chosen),)
            try:
                result = call(executor, *operands, **named)
            except interpreter.InterpreterError as error:
                cause: BaseException | None = error
                while cause is not None and not isinstance(cause, Finding):
                    cause = cause.__cause__
                raise (cause or error) from None
            self._memory.finish()
            return result

        return launched

    def call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps the call of a function by a kernel.

        The interpreter replaces the operations of `triton.language` at every call.  Doing this once for each
        file and launch is sufficient, and saves a third of the time.
        """

        def called(function: Any, *operands: Any, **named: Any) -> Any:
            self.ran.add(_name(function.fn))
            if (file := function.fn.__module__) not in self._prepared:
                self._prepared.add(file)
                return call(function, *operands, **named)
            return function.rewrite()(*operands, **named)

        return called

    def argument(self, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Wraps the conversion of an operand, so that a pointer is associated with its tensor."""

        def converted(operand: Any) -> Any:
            result = convert(operand)
            if isinstance(operand, Tensor):
                is_it = Argument.of("", operand)
                for each in self._memory.arguments:
                    if (each.begin, each.end, each.kind) == (is_it.begin, is_it.end, is_it.kind):
                        result.handle.argument = each
            return result

        return converted

    def pointer(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def created(*operands: Any, **named: Any) -> Any:
            result = create(*operands, **named)
            for operand in operands:
                if (argument := getattr(operand, "argument", None)) is not None:
                    result.argument = argument
                    break
            return result

        return created

    def grid(self, set_grid: Callable[..., None]) -> Callable[..., None]:
        """Wraps the setting of the grid: the number of programs and their order."""

        def set_and_ordered(*_: int) -> None:
            chosen = self._chosen
            programs = list(product(*map(range, self._grid))) if chosen is None else chosen
            if self._order == "reversed":
                programs.reverse()
            elif self._order == "shuffled":
                self._random.shuffle(programs)
            self._turns = iter(programs)
            set_grid(*self._grid)

        return set_and_ordered

    def turn(self, set_index: Callable[..., None]) -> Callable[..., None]:
        """Wraps the start of a program, to run another one than the interpreter would."""

        def set_in_order(*_: int) -> None:
            program = next(self._turns)
            self._memory.begin(program)
            set_index(*program)

        return set_in_order

    def barrier(self, create: Callable[[], Any]) -> Callable[[], Any]:
        def created() -> Any:
            self._memory.barrier()
            return create()

        return created

    def load(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def created(pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
            if not self._atomic:
                self._memory.load(self._access("load", pointers, mask), _argument(pointers))
            return create(pointers, mask, *rest, **named)

        return created

    def store(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def created(pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
            if not self._atomic:
                access = self._access("store", pointers, mask)
                values = np.broadcast_to(value.data, pointers.data.shape).reshape(-1)
                values = values if access.lanes is None else values[access.lanes]
                self._memory.store(access, _argument(pointers), values)
            return create(pointers, value, mask, *rest, **named)

        return created

    def atomic(self, create: Callable[..., Any], pointer_at: int, mask_at: int | None) -> Callable[..., Any]:
        """Wraps an atomic operation.  pointer_at, mask_at: the positions of these operands"""

        def created(*operands: Any) -> Any:
            pointers, mask = operands[pointer_at], None if mask_at is None else operands[mask_at]
            order = next((name for each in operands if (name := getattr(each, "name", "")) in _ORDERS), "")
            access = self._access("atomic", pointers, mask)
            self._memory.atomic(access, _argument(pointers), "ACQUIRE" in order, "RELEASE" in order)
            self._atomic = True  # some consist of loads and stores
            try:
                return create(*operands)
            finally:
                self._atomic = False

        return created

    def _access(self, verb: str, pointers: Any, mask: Any) -> Access:
        addresses, lanes = pointers.data.reshape(-1), None
        if mask is not None and not mask.data.all():
            lanes = np.flatnonzero(np.broadcast_to(mask.data, pointers.data.shape))
            addresses = addresses[lanes]
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        memory = self._memory
        return Access(verb, addresses, lanes, width, memory.era, memory.program, _place(), memory.heard)


@contextmanager
def watching(
    order: str = "numbered",
    seed: int = 0,
    programs: Choice | None = None,
    poison: bool = True,
) -> Iterator[Watch]:
    """Checks every launch in this context, and raises Finding at the first error.

    order     of the programs of a launch, see ORDERS; `seed` is for the shuffled one
    programs  a function of the grid: which programs run; None: all
    poison    whether torch.empty is filled; not possible for tensors larger than memory
    """
    assert order in ORDERS
    watch, builder = Watch(order, seed, programs), interpreter.interpreter_builder
    patches: dict[str, Callable[..., Any]] = {
        "create_masked_load": watch.load,
        "create_masked_store": watch.store,
        "create_barrier": watch.barrier,
        "set_grid_dim": watch.grid,
        "set_grid_idx": watch.turn,
        "create_atomic_rmw": lambda create: watch.atomic(create, 1, 3),
        "create_atomic_cas": lambda create: watch.atomic(create, 0, None),
        "create_atomic_load": lambda create: watch.atomic(create, 0, 1),
        "create_atomic_store": lambda create: watch.atomic(create, 0, 2),
    } | dict.fromkeys(_POINTER_OPERATIONS, watch.pointer)
    with ExitStack() as stack:
        for name, wrap in patches.items():
            if hasattr(builder, name):  # not every Triton has atomic loads
                stack.enter_context(mock.patch.object(builder, name, wrap(getattr(builder, name))))
        for holder, name, wrap in (
            (interpreter.GridExecutor, "__call__", watch.launch),
            (interpreter.InterpretedFunction, "__call__", watch.call),
            (interpreter, "_implicit_cvt", watch.argument),
        ):
            stack.enter_context(mock.patch.object(holder, name, wrap(getattr(holder, name))))
        if poison:
            stack.enter_context(_poisoned())
        yield watch


@contextmanager
def _poisoned() -> Iterator[None]:
    """torch.empty returns NaN, or the largest integers."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


def _argument(pointers: Any) -> Argument | None:
    return getattr(pointers, "argument", None)


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__name__}"


def _place() -> Place:
    """The lines of kernels on the stack, the innermost first: all above the launch that are neither Triton's
    nor this file's.
    """
    places = []
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "launched":
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(_TRITON) and "/unittest/" not in file:
            places.append((file, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(places)
