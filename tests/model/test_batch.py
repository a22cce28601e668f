"""`Batch.of` gives the same batch as one written by hand."""

import torch

from model.batch import BANDED, FULL, Batch


def test_chunks_over_scattered_pages():
    """Three sequences with pages of 4: a prompt, a chunk over two pages, a decode at the start of a page."""
    table = torch.tensor([[[7, 0, 0], [3, 9, 0], [1, 2, 4]], [[5, 0, 0], [8, 6, 0], [10, 11, 12]]])
    batch = Batch.of([(0, 3), (2, 4), (8, 1)], table, 4, tokens=torch.arange(8))
    assert batch.tokens.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert batch.positions.tolist() == [0, 1, 2, 2, 3, 4, 5, 8]
    assert batch.slots[BANDED].tolist() == [28, 29, 30, 14, 15, 36, 37, 16]
    assert batch.slots[FULL].tolist() == [20, 21, 22, 34, 35, 24, 25, 48]
    assert batch.starts.tolist() == [0, 3, 7, 8]
    assert batch.lengths.tolist() == [3, 6, 9]
    assert batch.samples.tolist() == [2, 6, 7]
    assert torch.equal(batch.page_table.long(), table)
    assert {batch.starts.dtype, batch.lengths.dtype, batch.page_table.dtype} == {torch.int32}
    assert {batch.tokens.dtype, batch.slots.dtype, batch.samples.dtype} == {torch.int64}


def test_what_is_not_given():
    table = torch.zeros(2, 1, 1, dtype=torch.int32)
    some = torch.tensor([1, 0])
    batch = Batch.of([(0, 2)], table, 4, samples=some, temperatures=torch.ones(2))
    assert batch.tokens.tolist() == [0, 0]
    assert batch.samples is some
    assert batch.temperatures.tolist() == [1, 1]


def test_all_of_a_batch_moves_but_temperatures_which_may_be_absent():
    """Before, a GPU test moved each field itself, and failed for a batch without temperatures."""
    table = torch.arange(6).view(2, 3, 1)
    for temperatures in (None, torch.ones(3)):
        batch = Batch.of([(0, 3), (2, 1), (1, 1)], table, 4, temperatures=temperatures)
        moved = batch.to(torch.device("meta"))
        for name in ("tokens", "positions", "slots", "starts", "lengths", "page_table", "samples"):
            assert getattr(moved, name).device.type == "meta", name
        assert moved.temperatures is temperatures
