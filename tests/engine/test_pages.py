import random

import pytest

from engine.pages import Pages, PageTable
from model.batch import BANDED, FULL

SIZE, WINDOW = 4, 6


def computed(pages: Pages, tokens: list[int]) -> tuple[PageTable, list[bytes]]:
    """A sequence whose tokens are computed, and whose pages are published."""
    table, hashes = PageTable(), []
    for count in range(1, len(tokens) + 1):
        pages.slide(table, count - 1)
        assert pages.grow(table, count)
        complete = count // pages.page_size
        pages.extend_hashes(hashes, tokens, complete)
        pages.publish(table, hashes, complete)
    return table, hashes


@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 32])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 6, 128])
def test_a_sequence_that_advances_token_by_token_never_holds_more_than_it_needs(page_size, window):
    pages = Pages(1000, page_size, window)
    table = PageTable()
    most = 0
    for tokens in range(1, 300):
        pages.slide(table, tokens - 1)
        assert pages.grow(table, tokens)
        most = max(most, table.held)
        assert table.held <= pages.needed(tokens)
    assert most == pages.needed(299), "and the bound is tight"


@pytest.mark.parametrize("num_pages", range(2, 40))
def test_the_capacity_is_the_longest_that_fits(num_pages):
    for page_size in (1, 3, 4):
        for window in (1, 4, 9):
            pages = Pages(num_pages, page_size, window)
            assert pages.needed(pages.capacity) <= num_pages < pages.needed(pages.capacity + 1)


def test_growing_without_room_changes_nothing():
    pages = Pages(5, SIZE, WINDOW)
    table = PageTable()
    assert pages.grow(table, 2 * SIZE)
    before = (table.full[:], table.banded[:], pages.available)
    assert not pages.grow(table, 2 * SIZE + 1)
    assert (table.full, table.banded, pages.available) == before
    assert pages.reach(table) == 2 * SIZE


def test_a_page_is_let_go_when_the_last_position_that_sees_it_is_computed():
    pages = Pages(20, SIZE, WINDOW)
    table = PageTable()
    pages.grow(table, 16)
    for position, behind in [(0, 0), (8, 0), (9, 1), (12, 1), (13, 2)]:
        pages.slide(table, position)  # sees position - 5 ... position
        assert table.behind == behind, position


def test_a_second_sequence_shares_the_first_ones_pages():
    pages = Pages(40, SIZE, WINDOW)
    first, hashes = computed(pages, list(range(18)))
    assert pages.find(hashes) == 4
    second = PageTable()
    before = pages.available
    pages.share(second, hashes[:4])
    assert list(second.full) == list(first.full[:4])
    assert second.behind == 2, "position 16 sees 11 to 16: pages 2 and 3"
    assert list(second.banded[2:]) == list(first.banded[2:4])
    assert pages.available == before - 1, (
        "page 2, which the first had let go of, is held again; nothing was taken"
    )
    pages.release(first)
    assert pages.find(hashes) == 4
    pages.release(second)
    assert pages.available == 40
    pages.check()


def test_pages_of_a_sequence_that_ended_are_found_again_until_they_are_needed():
    pages = Pages(20, SIZE, WINDOW)
    table, hashes = computed(pages, list(range(16)))
    pages.release(table)
    assert pages.find(hashes) == 4
    other = PageTable()
    pages.grow(other, 10 * SIZE)  # takes everything
    assert pages.find(hashes) == 0
    pages.check()


def test_what_was_used_longest_ago_is_taken_first():
    pages = Pages(24, SIZE, WINDOW)
    old, old_hashes = computed(pages, [1] * 8)
    pages.release(old)
    new, new_hashes = computed(pages, [2] * 8)
    pages.release(new)
    table = PageTable()
    pages.grow(table, 8 * SIZE)  # 16 never used, then 4 more
    pages.grow(table, 10 * SIZE)
    assert pages.find(old_hashes) == 0
    assert pages.find(new_hashes) == 2
    again = PageTable()
    pages.share(again, new_hashes)
    pages.release(again)
    pages.check()


def test_a_prefix_that_lost_its_window_is_not_shared_but_a_shorter_one_is():
    pages = Pages(40, SIZE, WINDOW)
    table, hashes = computed(pages, list(range(16)))
    pages._forget(table.banded[3])
    assert pages.find(hashes) == 3
    pages._forget(table.banded[2])
    assert pages.find(hashes) == 2
    pages._forget(table.full[0])
    assert pages.find(hashes) == 0


def test_the_end_of_a_prompt_stays_as_long_as_the_rest_of_it():
    """Its banded pages are freed while the answer grows, long before its full pages."""
    pages = Pages(60, SIZE, WINDOW)
    table, hashes = computed(pages, list(range(40)))
    other, _ = computed(pages, [7] * 8)
    pages.release(other)
    pages.release(table)
    pages.refresh(hashes[:3])  # a prompt of twelve tokens
    taken = PageTable()
    idle = len(pages._pools[0].idle)
    pages.grow(taken, SIZE * ((60 - idle) // 2 + 6))  # all that was free, and twelve more
    assert pages.find(hashes[:3]) == 3


def test_hashes_depend_on_all_tokens_before_and_on_the_process():
    pages, others = Pages(2, SIZE, WINDOW), Pages(2, SIZE, WINDOW)
    a, b, c = [], [], []
    pages.extend_hashes(a, [1, 2, 3, 4, 5, 6, 7, 8], 2)
    pages.extend_hashes(b, [0, 2, 3, 4, 5, 6, 7, 8], 2)
    others.extend_hashes(c, [1, 2, 3, 4, 5, 6, 7, 8], 2)
    assert len({*a, *b, *c}) == 6
    again = a[:1]
    pages.extend_hashes(again, [1, 2, 3, 4, 5, 6, 7, 8], 2)
    assert again == a


def test_withdrawn_pages_are_not_found_and_not_lost():
    pages = Pages(20, SIZE, WINDOW)
    table, hashes = computed(pages, list(range(16)))
    pages.slide(table, 15)
    pages.withdraw(hashes)
    assert pages.find(hashes) == 0
    pages.release(table)
    assert pages.available == 20
    pages.check()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_done_no_page_is_lost_or_given_twice(seed):
    r = random.Random(seed)
    pages = Pages(r.choice((10, 30, 100)), r.choice((1, 3, 4)), r.choice((1, 5, 9)))
    tables: list[tuple[PageTable, list[bytes], list[int]]] = []
    for _ in range(300):
        if not tables or r.random() < 0.3:
            tokens = [r.randrange(2) for _ in range(40)]
            hashes: list[bytes] = []
            pages.extend_hashes(hashes, tokens, 40 // pages.page_size)
            table = PageTable()
            pages.share(table, hashes[: pages.find(hashes)])
            tables.append((table, hashes, tokens))
        table, hashes, tokens = r.choice(tables)
        have = len(table.full) * pages.page_size
        pages.slide(table, have)
        if have < 40 and pages.grow(table, min(40, have + r.randrange(1, 9))):
            pages.publish(table, hashes, min(len(table.full), len(hashes)))
        elif r.random() < 0.5:
            tables.remove((table, hashes, tokens))
            pages.release(table)
        held = [page for t, _, _ in tables for page in (*t.full, *t.banded[t.behind :])]
        assert pages.available == pages.num_pages - len(set(held))
        private = [page for t, _, _ in tables for page in t.full if page not in pages._hash_of]
        assert len(private) == len(set(private))
        pages.check()
    assert {FULL, BANDED} == {0, 1}


def test_a_salt_makes_other_pages_of_the_same_tokens():
    pages = Pages(100, SIZE, WINDOW)
    tokens = list(range(12))

    def hashed(salt):
        hashes = []
        for count in (1, 3):  # in several steps
            pages.extend_hashes(hashes, tokens, count, salt)
        return hashes

    salts = [b"", b"a", b"b", b"a" * 2000]
    every = [hashed(salt) for salt in salts]
    assert len({digest for hashes in every for digest in hashes}) == 3 * len(salts)
    assert hashed(b"a") == every[1]
