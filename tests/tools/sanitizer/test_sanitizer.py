"""The sanitizer finds what it is for in small kernels that are wrong on purpose, nothing in right ones."""

from pathlib import Path

import pytest
import torch

from tests.model.backends.triton.triton_here import DEVICE  # must be the first import

# isort: split
import triton
import triton.language as tl

if DEVICE.type == "cuda":
    pytest.skip("a GPU has sanitizers of its own", allow_module_level=True)

from tests.tools.sanitizer.sanitizer import ORDERS, watching
from tests.tools.sanitizer.sanitizer_memory import Finding


@triton.jit
def _copied(source, at, mask):
    return tl.load(source + at, mask, 0.0)


@triton.jit
def _copy_kernel(source, target, size, BLOCK: tl.constexpr, SHIFT: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = _copied(source, at + SHIFT, at < size)
    tl.store(target + at, x, at < size)


@triton.jit
def _wild_kernel(source, target, BLOCK: tl.constexpr):
    """Right: lanes that are masked off point anywhere."""
    at = tl.arange(0, BLOCK)
    here = at < 3
    x = tl.load(source + (1 - here.to(tl.int64)) * (1 << 50) + at, here, 7.0)
    tl.store(target - (1 - here.to(tl.int64)) * (1 << 40) + at, x, here)


@triton.jit
def _before_kernel(target):
    tl.store(target - 1, 1.0)


@triton.jit
def _crossed_kernel(first, second, target):
    """Reads, through the first pointer, memory that was given too: by another name."""
    tl.store(target, tl.load(first + 4) + tl.load(second))


@triton.jit
def _byte_kernel(source, target):
    odd = (source.to(tl.pointer_type(tl.int8)) + 2).to(tl.pointer_type(tl.float32))
    tl.store(target, tl.load(odd))


@triton.jit
def _all_store_kernel(target):
    tl.store(target + tl.program_id(0) // 2, 1.0)


@triton.jit
def _count_kernel(target, counts, ATOMIC: tl.constexpr):
    if ATOMIC:
        tl.atomic_add(counts, 1)
    else:
        tl.store(counts, tl.load(counts) + 1)
    tl.store(target + tl.program_id(0), 1.0)


@triton.jit
def _mixed_kernel(counts, out):
    """Adds atomically, and looks at the sum in a program that cannot know that all have."""
    tl.atomic_add(counts, 1)
    if tl.program_id(0) == 0:
        tl.store(out, tl.load(counts))


@triton.jit
def _last_adds_up_kernel(
    parts, arrivals, out, BARRIER: tl.constexpr, ASKS: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr
):
    """Right if all three are: whoever arrives last has heard of all others' stores."""
    at = tl.arange(0, BLOCK)
    tl.store(parts + tl.program_id(0) * BLOCK + at, at)
    if BARRIER:
        tl.debug_barrier()
    arrived = tl.atomic_add(arrivals, 1, sem=ORDER)
    if arrived == tl.num_programs(0) - 1 or not ASKS:
        total = tl.zeros([BLOCK], tl.int32)
        for program in range(tl.num_programs(0)):
            total += tl.load(parts + program * BLOCK + at)
        if arrived == tl.num_programs(0) - 1:
            tl.store(out + at, total)
            tl.atomic_xchg(arrivals, 0)


@triton.jit
def _neighbour_kernel(x):
    """In place, each program with a look at what the next one writes."""
    program = tl.program_id(0)
    following = (program + 1) % tl.num_programs(0)
    tl.store(x + program, tl.load(x + following))


@triton.jit
def _turn_kernel(x, target, BLOCK: tl.constexpr, BARRIER: tl.constexpr):
    """Stores by one order of lanes and loads by another."""
    at = tl.arange(0, BLOCK)
    tl.store(x + at, at.to(tl.float32))
    if BARRIER:
        tl.debug_barrier()
    tl.store(target + at, tl.load(x + BLOCK - 1 - at))


@triton.jit
def _shifted_in_place_kernel(x, BLOCK: tl.constexpr):
    """Loads by one order of lanes and stores by another, what may not have been loaded yet."""
    at = tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + BLOCK - 1 - at))


@triton.jit
def _twice_kernel(x, BLOCK: tl.constexpr, BARRIER: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x + at, 0.0)
    if BARRIER:
        tl.debug_barrier()
    tl.store(x + at // 2, 1.0)


@triton.jit
def _in_place_kernel(x, BLOCK: tl.constexpr):
    """Right: each lane has its own number."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at) + 1.0)


@triton.jit
def _scatter_kernel(x, BLOCK: tl.constexpr, SAME: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = at // 2 if SAME else at
    tl.store(x + at // 2, value.to(tl.float32))


@triton.jit
def _order_kernel(seen, order):
    """The order of programs, by a count that each takes."""
    tl.store(order + tl.program_id(0) * 2 + tl.program_id(1), tl.atomic_add(seen, 1))


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


def line_of(kernel, code):
    """Where `code` stands in this file, below the head of `kernel`."""
    text = Path(__file__).read_text()
    return text.count("\n", 0, text.index(code, text.index(f"def {kernel}("))) + 1


def test_right_kernels_pass():
    source, target = torch.arange(10.0), zeros(10)
    with watching() as watch:
        _copy_kernel[(3,)](source, target, 10, 4, 0)
        assert torch.equal(source, target)
        _wild_kernel[(1,)](source[:3], target[:3], 4)
        _in_place_kernel[(5,)](target, 2)
        _copy_kernel[(1,)](zeros(0), zeros(0), 0, 4, 0)
        _count_kernel[(3,)](target, zeros(1, dtype=torch.int32), True)
    names = ("_copy_kernel", "_copied", "_wild_kernel", "_in_place_kernel", "_count_kernel")
    assert watch.ran == {f"{__name__}.{name}" for name in names}


def test_a_load_beyond_the_end_names_its_line_its_program_and_the_address():
    storage = torch.arange(100.0)
    with watching(), pytest.raises(Finding) as found:
        _copy_kernel[(3,)](storage[20:30], zeros(10), 10, 4, 1)
    loading = line_of("_copied", "tl.load")
    calling = line_of("_copy_kernel", "_copied(")
    assert str(found.value) == (
        "out of bounds: _copy_kernel, program (2, 0, 0), loads 4 bytes: 0 bytes behind the end of `source`,"
        f" float32 [10]; at test_sanitizer.py:{loading} in _copied from test_sanitizer.py:{calling} in"
        " _copy_kernel"
    )


def test_a_store_before_the_beginning_changes_nothing():
    storage = torch.arange(20.0)
    kept = storage.clone()
    with (
        watching(),
        pytest.raises(Finding, match=r"stores 4 bytes: 4 bytes before the beginning of `target`"),
    ):
        _before_kernel[(1,)](storage[5:])
    assert torch.equal(storage, kept)


def test_a_neighbour_in_the_same_storage_is_out_of_bounds_too():
    first, second = zeros(2, 4).unbind()
    with watching(), pytest.raises(Finding, match="behind the end of `first`"):
        _crossed_kernel[(1,)](first, second, zeros(1))


def test_memory_that_was_not_passed_is_out_of_bounds():
    with watching(), pytest.raises(Finding, match="behind the end of `source`"):
        _copy_kernel[(1,)](zeros(0), zeros(4), 4, 4, 0)


def test_an_address_between_two_elements_is_found():
    with watching(), pytest.raises(Finding, match=r"not aligned.* 2 bytes inside of `source`"):
        _byte_kernel[(1,)](zeros(2), zeros(1))


@pytest.mark.parametrize("order", ORDERS)
def test_two_programs_that_store_to_one_place_are_found_in_any_order(order):
    with (
        watching(order),
        pytest.raises(Finding, match=r"race: .* stores what another program stores: \d byt"),
    ):
        _all_store_kernel[(4,)](zeros(2))


def test_counting_needs_atomics():
    with watching(), pytest.raises(Finding, match=r"race: _count_kernel"):
        _count_kernel[(2,)](zeros(2), zeros(1, dtype=torch.int32), False)


@pytest.mark.parametrize("order", ORDERS)
def test_looking_at_what_others_change_atomically_is_found(order):
    with (
        watching(order),
        pytest.raises(Finding, match=r"program \(0, 0, 0\), loads what another program chang"),
    ):
        _mixed_kernel[(3,)](zeros(1, dtype=torch.int32), zeros(1, dtype=torch.int32))


@pytest.mark.parametrize("order", ORDERS)
def test_the_last_program_may_look_at_what_all_others_have_stored(order):
    """It, and no other; and each must have released its stores, all of its threads'."""

    def add_up(barrier=True, asks=True, memory_order="acq_rel"):
        parts, arrivals, out = (zeros(size, dtype=torch.int32) for size in (3 * 4, 1, 4))
        with watching(order):
            _last_adds_up_kernel[(3,)](parts, arrivals, out, barrier, asks, memory_order, 4)
        return arrivals.tolist() + out.tolist()

    assert add_up() == [0, 0, 3, 6, 9]
    for mistake in ({"barrier": False}, {"asks": False}, {"memory_order": "relaxed"}):
        with pytest.raises(Finding, match=r"race: _last_adds_up_kernel, .* loads what .* stor"):
            add_up(**mistake)
    for half in ("acquire", "release"):
        with pytest.raises(Finding, match="race"):
            add_up(memory_order=half)


@pytest.mark.parametrize("order", ORDERS)
def test_loading_what_another_program_stores_before_or_after_is_found(order):
    with watching(order), pytest.raises(Finding, match=r"race: .* loads what another program stores"):
        _neighbour_kernel[(2,)](zeros(2))


def test_loading_what_the_program_has_stored_needs_a_barrier():
    with watching(), pytest.raises(Finding, match="loads what it has itself just stored"):
        _turn_kernel[(1,)](zeros(4), zeros(4), 4, False)
    with watching():
        _turn_kernel[(1,)](zeros(4), zeros(4), 4, True)


def test_storing_twice_needs_a_barrier():
    with watching(), pytest.raises(Finding, match="stores what it has itself just stored"):
        _twice_kernel[(1,)](zeros(4), 4, False)
    with watching():
        _twice_kernel[(1,)](zeros(4), 4, True)


def test_storing_over_what_another_lane_loads_is_found():
    with watching(), pytest.raises(Finding, match="stores what another of its lanes loads"):
        _shifted_in_place_kernel[(1,)](zeros(4), 4)


def test_lanes_that_store_to_one_place_must_agree():
    with watching(), pytest.raises(Finding, match="lanes disagree"):
        _scatter_kernel[(1,)](zeros(2), 4, False)
    with watching():
        _scatter_kernel[(1,)](zeros(2), 4, True)


def test_what_nobody_wrote_is_not_a_number():
    target = zeros(4)
    with watching():
        _copy_kernel[(1,)](torch.empty(4), target, 4, 4, 0)
        assert torch.empty(2, dtype=torch.int32).tolist() == [2**31 - 1] * 2
    assert target.isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("order", "taken"), [("numbered", [0, 1, 2, 3, 4, 5]), ("reversed", [5, 4, 3, 2, 1, 0])]
)
def test_programs_run_in_the_order_that_was_asked_for(order, taken):
    places = zeros(3, 2, dtype=torch.int32)
    with watching(order):
        _order_kernel[(3, 2)](zeros(1, dtype=torch.int32), places)
    assert places.flatten().tolist() == taken


def test_a_shuffled_order_is_another_one_for_each_seed_and_the_same_again():
    def order(seed):
        places = zeros(4, 2, dtype=torch.int32)
        with watching("shuffled", seed):
            _order_kernel[(4, 2)](zeros(1, dtype=torch.int32), places)
        assert sorted(places.flatten().tolist()) == list(range(8))
        return places.flatten().tolist()

    assert order(1) == order(1) != order(2)


def test_afterwards_the_interpreter_is_as_it_was():
    from triton.runtime import interpreter

    def state():
        held = {name: held for name, held in vars(interpreter.interpreter_builder).items() if callable(held)}
        return held, interpreter.GridExecutor.__call__, interpreter._implicit_cvt

    target, before = zeros(2), state()
    with watching():
        assert state() != before
    assert state() == before
    with pytest.raises(Finding), watching():
        _all_store_kernel[(4,)](target)
    assert state() == before
    _all_store_kernel[(4,)](target)
    assert target.tolist() == [1, 1]
