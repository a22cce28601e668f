"""The table in docs/tensor-parallel.md is that of the memory plan."""

from bench.cards import CARDS, context, table
from model.loading.synthetic import SIZES
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "tensor-parallel.md"


def test_the_table_of_cards_is_the_memory_plans():
    text = PAGE.read_text().split("<!-- cards -->\n")[1].split("<!-- /cards -->")[0]
    assert text == table() + "\n", "python -m bench.cards prints the table"


def test_more_cards_have_more_room():
    for config in SIZES.values():
        for card in CARDS.values():
            rooms = [context(config, ranks, card) for ranks in (1, 2, 4, 8)]
            assert rooms == sorted(rooms)
    assert context(SIZES["120b"], 1, CARDS["48 GB"]) == 0, "what the page says it is for"
    assert context(SIZES["120b"], 4, CARDS["24 GB"]) > 100_000
