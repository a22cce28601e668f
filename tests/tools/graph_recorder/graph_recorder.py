"""CUDA graphs without CUDA: a capture records all operations, and a replay runs exactly these.

A capture runs nothing.  It records each operation of PyTorch with its tensors, and each launch of a kernel
with its arguments.  A replay runs these again, on the same memory, without the network's Python code.  So
everything that the host decided during the capture stays the same, as on a GPU.  In addition:

* Memory that a capture allocates belongs to its pool, which graphs share: its contents do not survive a
  replay.
* Other memory must still exist when a graph is replayed; the graph does not keep it alive.
* `Forbidden` is raised for operations that a capture does not allow: reading values on the host, copying data
  from the host, waiting for the device, and kernels that have not run before, which would be compiled.

    with graphs_recorded():
        graphs = Graphs(network, torch.device("cpu"), pages, vocab_size)

CUDA programming guide, "CUDA Graphs"; torch.cuda.graphs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from triton.runtime import interpreter

ALLOCATIONS = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy"}
FOR_THE_HOST = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero"}


class Forbidden(RuntimeError):
    """This operation is not allowed while a stream is capturing."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A reference to a tensor that a graph uses but does not own."""

    storage: StorageWeakRef
    dtype: torch.dtype
    offset: int
    size: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Outside:
        storage = StorageWeakRef(tensor.untyped_storage())
        return cls(storage, tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride())

    def tensor(self) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            raise Forbidden("a graph is replayed, and memory that it uses was freed")
        place = torch.empty(0, dtype=self.dtype)
        return place.set_(storage, self.offset, self.size, self.stride)


class Pool:
    """The memory of all graphs that are captured with the same handle."""

    def __init__(self) -> None:
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()

    def poison(self) -> None:
        for graph in self.graphs:
            for tensor in graph.memory:
                _poison(tensor)


class Graph:
    """Replaces torch.cuda.CUDAGraph.

    memory   tensors that were allocated during the capture
    replays  number of replays of all graphs
    """

    replays = 0

    def __init__(self) -> None:
        self.memory: list[Tensor] = []
        self._operations: list[Callable[[], None]] = []
        self._pool: Pool | None = None

    def captured(self, operations: list[Callable[[], None]], memory: list[Tensor], pool: Pool) -> None:
        self._operations, self.memory, self._pool = operations, memory, pool
        pool.graphs.add(self)

    def __len__(self) -> int:
        """Number of operations and kernels of a replay."""
        return len(self._operations)

    def replay(self) -> None:
        assert self._pool is not None, "nothing was captured"
        Graph.replays += 1
        self._pool.poison()
        for operation in self._operations:
            operation()


class Capture:
    """Replaces torch.cuda.graph."""

    now: Capture | None = None

    def __init__(self, graph: Graph, pool: Pool, capture_error_mode: str = "global"):
        self._dispatch = Dispatch(self)
        self._graph, self._pool = graph, pool
        self._operations: list[Callable[[], None]] = []
        self._memory: list[Tensor] = []
        self._own: set[StorageWeakRef] = set()

    def __enter__(self) -> None:
        assert Capture.now is None, "one capture at a time"
        Capture.now = self
        self._dispatch.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._dispatch.__exit__(kind, error, trace)
        Capture.now = None
        if error is None:
            self._graph.captured(self._operations, self._memory, self._pool)

    def operation(self, function: Any, operands: Any, named: Any) -> Any:
        """Record an operation of PyTorch.  Returns its result, with wrong values, because nothing was
        computed.
        """
        name = function.overloadpacket.__name__
        if name in FROM_THE_HOST:
            raise Forbidden(f"data of the host cannot be in a graph ({name})")
        if name in FOR_THE_HOST:
            raise Forbidden(f"the host cannot look at values while a graph is captured ({name})")
        schema = function._schema
        if schema.is_mutable:
            self._note(function, operands, named)
            return _changed(schema, operands, named)
        result = function(*operands, **named)
        if any(each.alias_info is not None for each in schema.returns):  # a view: the same memory
            return result
        assert isinstance(result, Tensor), f"{name} has several results"
        self._own.add(StorageWeakRef(result.untyped_storage()))
        self._memory.append(result)
        _poison(result)  # nothing has run
        if name not in ALLOCATIONS:
            self._note(function, operands, named, into=result)
        return result

    def launch(self, launched: Callable[..., Any], executor: Any, operands: Any, named: Any) -> None:
        """Record the launch of a kernel."""
        self._note(lambda *now, **named_now: launched(executor, *now, **named_now), operands, named)

    def _note(self, function: Any, operands: Any, named: Any, into: Tensor | None = None) -> None:
        operands, named = self._kept(operands), self._kept(named)

        def again() -> None:
            result = function(*_there(operands), **_there(named))
            if into is not None:
                into.copy_(result)

        self._operations.append(again)

    def _kept(self, operands: Any) -> Any:
        """The capture's own tensors, and references to all others."""

        def kept(operand: Any) -> Any:
            if not isinstance(operand, Tensor):
                return operand
            own = StorageWeakRef(operand.untyped_storage()) in self._own
            return operand if own else Outside.of(operand)

        return tree_map(kept, operands)


class Dispatch(TorchDispatchMode):
    """Passes operations to a capture, divided into their smallest parts."""

    def __init__(self, capture: Capture):
        super().__init__()
        self._capture = capture

    def __torch_dispatch__(self, function: Any, types: Any, operands: Any = (), named: Any = None) -> Any:
        named = named or {}
        with self:
            parts = function.decompose(*operands, **named)
        return self._capture.operation(function, operands, named) if parts is NotImplemented else parts


@contextmanager
def graphs_recorded() -> Iterator[None]:
    """Replaces the graphs of torch.cuda by those above, on CPU tensors and interpreted kernels."""
    compiled: set[Any] = set()
    call = interpreter.GridExecutor.__call__

    def called(executor: Any, *operands: Any, **named: Any) -> Any:
        fixed = dict(zip(executor.arg_names, operands, strict=False)) | named
        variant = executor.fn, *(fixed.get(name) for name in executor.constexprs)
        if Capture.now is None:
            compiled.add(variant)
            return call(executor, *operands, **named)
        if variant not in compiled:
            raise Forbidden(f"{executor.fn.__name__} would be compiled while a graph is captured")
        return Capture.now.launch(call, executor, operands, named)

    with ExitStack() as stack:

        def put(holder: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(holder, name, value))

        put(interpreter.GridExecutor, "__call__", called)
        put(torch.cuda, "CUDAGraph", Graph)
        put(torch.cuda, "graph", Capture)
        put(torch.cuda, "graph_pool_handle", Pool)
        put(torch.cuda, "synchronize", _unless_capturing("waiting for the device", lambda *_: None))
        for name in ("tolist", "numpy", "cpu"):  # which do not use the dispatcher for memory of the host
            what = f"the host looking at values ({name})"
            put(Tensor, name, _unless_capturing(what, getattr(Tensor, name)))
        yield


def _unless_capturing(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*operands: Any, **named: Any) -> Any:
        if Capture.now is not None:
            raise Forbidden(f"{what} cannot be in a graph")
        return function(*operands, **named)

    return called


def _there(operands: Any) -> Any:
    return tree_map(lambda each: each.tensor() if isinstance(each, Outside) else each, operands)


def _changed(schema: Any, operands: Any, named: Any) -> Any:
    """The operands that an in-place operation changes and returns."""
    changed = [
        operands[place] if place < len(operands) else named[argument.name]
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    assert len(changed) == len(schema.returns) == 1, schema
    return changed[0]


def _poison(tensor: Tensor) -> None:
    """Fill a tensor with wrong values."""
    if tensor.dtype.is_floating_point:
        tensor.fill_(torch.nan)
    elif tensor.dtype != torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).max)
