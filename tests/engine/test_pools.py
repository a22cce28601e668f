"""If banded and full pages have different sizes, each kind has its own pool, and never uses the other's
pages.
"""

import random

import pytest

from engine.admission import Limits
from engine.pages import Pages, PageTable
from tests.tools.traffic.traffic import Traffic


@pytest.mark.parametrize("seed", range(60))
def test_under_random_traffic_every_answer_is_its_own_and_every_page_comes_back(seed):
    """With too few pages of each kind, sequences wait, are preempted and computed again, and all end."""
    Traffic(seed, own_pools=True).run()


@pytest.mark.parametrize("seed", range(20))
def test_each_kind_has_its_own_numbers(seed):
    r = random.Random(seed)
    banded, full = r.choice((3, 9, 20)), r.choice((5, 30))
    pages = Pages((banded, full), r.choice((1, 3, 4)), r.choice((1, 5, 9)))
    assert pages.num_pages == banded + full
    tables = [PageTable() for _ in range(4)]
    for _ in range(200):
        table = r.choice(tables)
        have = len(table.full) * pages.page_size
        pages.slide(table, have)
        if r.random() < 0.3:
            pages.release(table)
        else:
            wanted = have + r.randrange(1, 9)
            fits = wanted <= pages.reach(table)
            assert pages.grow(table, wanted) == fits
        held = [set(table.banded[table.behind :]) for table in tables], [set(t.full) for t in tables]
        assert all(page < banded for pool in held[0] for page in pool)
        assert all(banded <= page < banded + full for pool in held[1] for page in pool)
        assert pages.available_of_each == tuple(
            total - len(set().union(*kind)) for total, kind in zip((banded, full), held, strict=True)
        )
        pages.check()


@pytest.mark.parametrize(("banded", "full", "fit"), [(5, 40, 40), (9, 40, 40), (4, 40, 4), (7, 3, 3)])
def test_the_longest_sequence_is_bounded_by_what_there_is_less_of(banded, full, fit):
    """A window of 128 positions touches five pages of 32; with fewer, no page can be freed."""
    pages = Pages((banded, full), page_size=32, window=128)
    assert pages.capacity == fit * 32
    table = PageTable()
    for tokens in range(1, pages.capacity + 1):
        pages.slide(table, tokens - 1)
        assert pages.grow(table, tokens), "token by token it gets there"
    pages.slide(table, pages.capacity)
    assert not pages.grow(table, pages.capacity + 1)


def test_a_prefix_keeps_its_banded_pages_until_others_need_such_pages():
    """If other sequences take full pages, banded pages keep their contents."""
    pages = Pages((6, 40), page_size=4, window=5)
    tokens = list(range(12))
    hashes = []
    pages.extend_hashes(hashes, tokens, 3)
    table = PageTable()
    assert pages.grow(table, 12)
    pages.publish(table, hashes, 3)
    pages.release(table)
    assert pages.find(hashes) == 3
    other = PageTable()
    for length in range(1, 100):
        pages.slide(other, length - 1)
        assert pages.grow(other, length)
        assert pages.find(hashes) == 3
    assert len(other.full) > 20
    third = PageTable()
    assert pages.grow(third, 16)
    assert pages.find(hashes) < 3


@pytest.mark.parametrize("num_pages", [(0, 5), (5, 0)])
def test_one_page_of_each_kind_is_the_least(num_pages):
    with pytest.raises(ValueError, match="even one token needs a page of each kind"):
        Limits(num_pages=num_pages, page_size=4, window=4, max_context=100)
