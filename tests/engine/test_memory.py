import pytest

from engine.admission import Limits
from engine.engine import Engine
from engine.memory import GIB, TooLittleMemory, free_host_bytes, plan
from engine.request import Request
from model.loading.synthetic import GPT_OSS_20B as SIZES_20B
from model.sizes import page_bytes, weight_bytes
from tests.tools.traffic.historian import GREEDY, make_engine

# gpt-oss-20b: 12 layers of each kind, 8 heads of 64 for keys and for values, in bf16
LAYERS_OF_ONE_KIND, PAGE_SIZE, WINDOW = 12, 32, 128
PAGE_BYTES = PAGE_SIZE * LAYERS_OF_ONE_KIND * 2 * 8 * 64 * 2
SIZES = {"page_bytes": PAGE_BYTES, "page_size": PAGE_SIZE, "window": WINDOW}
CHUNK = 3 * PAGE_SIZE
NAIVE_BYTES_PER_TOKEN = 2 * PAGE_BYTES // PAGE_SIZE  # all 24 layers keep everything


def test_a_token_of_context_costs_half_of_naive():
    """Measured: the maximum number of pages that one growing sequence held."""

    def most_bytes(tokens: int) -> int:
        engine: Engine = make_engine(
            Limits(
                num_pages=2000,
                page_size=PAGE_SIZE,
                window=WINDOW,
                max_context=10_000,
                max_tokens_per_step=CHUNK,
                prefix_cache=False,
            )
        )
        engine.add(Request("a", [n % 97 for n in range(tokens - 20)], 20, sampling=GREEDY))
        most = 0
        while engine.busy:
            engine.step()
            stats = engine.stats()
            most = max(most, stats.pages_total - stats.pages_free)
        return most * PAGE_BYTES

    short, long = 1024, 1024 + 22 * CHUNK
    per_token = (most_bytes(long) - most_bytes(short)) / (long - short)
    assert per_token == 24_576 == NAIVE_BYTES_PER_TOKEN / 2
    fixed = most_bytes(long) - long * 24_576
    assert fixed <= (WINDOW + CHUNK + 2 * PAGE_SIZE) * 24_576, "the band, and the chunk that is being read"


def test_the_plan_fills_what_weights_and_workspace_leave():
    made = plan(
        14 * GIB, **SIZES, available_bytes=80 * GIB, max_context=131_072, max_running=64, fraction=0.9
    )
    assert made.keys_and_values == pytest.approx(0.9 * (80 - 14 - 1) * GIB, abs=PAGE_BYTES)
    assert made.bytes_per_token == 24_576
    assert made.context_tokens == 131_072
    assert str(made).splitlines() == [
        "memory: 15.0 GB weights + 62.8 GB keys and values + 1.1 GB workspace, of 85.9 GB available",
        f"cache: {made.num_pages} pages of 32 positions, 131072 tokens of context at 24.6 kB each",
    ]


def test_the_plan_takes_no_more_than_could_be_used():
    made = plan(0, **SIZES, available_bytes=80 * GIB, max_context=4096, max_running=2)
    assert made.num_pages == 2 * (4096 // PAGE_SIZE + WINDOW // PAGE_SIZE + 1)


def test_the_plan_takes_what_it_is_told():
    made = plan(0, **SIZES, available_bytes=8 * GIB, max_context=131_072, max_running=64, kv_bytes=GIB)
    assert GIB - PAGE_BYTES < made.keys_and_values <= GIB
    assert made.context_tokens == (made.num_pages - 5) * PAGE_SIZE, "less than the model could"


@pytest.mark.parametrize(
    "options", [{"available_bytes": 14 * GIB}, {"available_bytes": 20 * GIB, "kv_bytes": 8 * GIB}]
)
def test_what_does_not_fit_is_refused_with_all_the_numbers(options):
    with pytest.raises(
        TooLittleMemory, match=r"of memory are available, but 14\.0 GB are needed for weights"
    ):
        plan(14 * 10**9, **SIZES, max_context=4096, max_running=2, **options)


def test_the_host_has_some_memory_free():
    assert 2**20 < free_host_bytes() < 2**50


# An 8-bit cache: full layers' pages are half of the banded ones', and each kind has a pool of its own.
APART = {"page_bytes": (PAGE_BYTES, PAGE_BYTES // 2), "page_size": PAGE_SIZE, "window": WINDOW}
BAND = 5  # pages of 32 that 128 positions touch


def test_the_published_20b_in_eight_bits_has_its_whole_context_on_a_card_of_16_gib():
    """With weights and keys in eight bits; half a GiB is left for the driver and the display."""
    made = plan(
        weight_bytes(SIZES_20B, "int8"),
        page_bytes(SIZES_20B, PAGE_SIZE, "fp8"),
        PAGE_SIZE,
        WINDOW,
        int(15.5 * GIB),
        max_context=131_072,
        max_running=64,
    )
    assert page_bytes(SIZES_20B, PAGE_SIZE, "fp8") == APART["page_bytes"]
    assert made.context_tokens == 131_072
    assert made.weights + made.keys_and_values + made.workspace < made.available == int(15.5 * GIB)
    assert str(made).splitlines() == [
        "memory: 12.6 GB weights + 2.7 GB keys and values + 1.1 GB workspace, of 16.6 GB available",
        "cache: 6008 pages of 32 positions for full layers, 429 for banded ones, 131072 tokens of context at"
        " 12.3 kB each",
    ]


@pytest.mark.parametrize(("dense", "kept"), [("bf16", "bf16"), ("bf16", "fp8"), ("int8", "bf16")])
def test_with_less_than_both_it_has_not(dense, kept):
    weights, pages = weight_bytes(SIZES_20B, dense), page_bytes(SIZES_20B, PAGE_SIZE, kept)
    sizes = {"max_context": 131_072, "max_running": 64}
    assert plan(weights, pages, PAGE_SIZE, WINDOW, int(15.5 * GIB), **sizes).context_tokens < 131_072


def test_banded_pages_are_set_apart_for_bands_and_beginnings():
    made = plan(0, **APART, available_bytes=80 * GIB, max_context=131_072, max_running=64)
    banded, full = made.num_pages
    assert banded == 2 * 64 * BAND
    assert made.keys_and_values == banded * PAGE_BYTES + full * PAGE_BYTES // 2
    assert made.keys_and_values == pytest.approx(0.9 * 79 * GIB, abs=PAGE_BYTES)


def test_pools_apart_take_no_more_than_could_be_used():
    made = plan(0, **APART, available_bytes=80 * GIB, max_context=4096, max_running=2)
    assert made.num_pages == (2 * 2 * BAND, 2 * 4096 // PAGE_SIZE)


@pytest.mark.parametrize("megabytes", [6, 20, 100])
def test_a_small_cache_has_a_band_and_what_else_fits(megabytes):
    made = plan(
        0, **APART, available_bytes=8 * GIB, max_context=131_072, max_running=64, kv_bytes=megabytes * 10**6
    )
    banded, full = made.num_pages
    assert banded == max(BAND, megabytes * 10**6 // 8 // PAGE_BYTES)
    assert made.keys_and_values <= megabytes * 10**6 < made.keys_and_values + PAGE_BYTES
    assert made.context_tokens == full * PAGE_SIZE


def test_without_a_page_of_each_kind_there_is_no_plan():
    with pytest.raises(TooLittleMemory, match=r"4\.0 MB for keys and values"):
        plan(0, **APART, available_bytes=8 * GIB, max_context=4096, max_running=2, kv_bytes=4 * 10**6)
