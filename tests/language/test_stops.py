"""Stop strings are found however the text is divided into pieces."""

from hypothesis import given, settings
from hypothesis import strategies as st

from language.stops import StopStrings

ALPHABET = st.text("ab", max_size=30)


def feed(stops, pieces):
    shown = ""
    for piece in pieces:
        shown += stops.feed(piece)
        if stops.stopped:
            return shown
    return shown + stops.flush()


@settings(deadline=None)  # a busy machine may be slow
@given(ALPHABET, st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_pieces_make_no_difference(text, strings, data):
    """The expected result: the text ends before the stop string that is complete first."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    one_by_one = feed(StopStrings(strings), text)
    found = [text.find(string) for string in strings if string in text]
    if not found:
        assert feed(StopStrings(strings), pieces) == one_by_one == text
    else:
        stops = StopStrings(strings)
        shown = feed(stops, pieces)
        assert stops.stopped
        assert text.startswith(shown)
        assert not any(string in shown for string in strings)
        assert min(found) <= len(one_by_one)


@settings(deadline=None)  # a busy machine may be slow
@given(ALPHABET, st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_is_shown_that_could_still_be_part_of_a_stop_string(text, strings):
    stops = StopStrings(strings)
    shown = ""
    for char in text:
        shown += stops.feed(char)
        if stops.stopped:
            break
        held = text[len(shown) : len(shown) + len(stops._held)]
        assert stops._held == held
        assert held == "" or any(string.startswith(held) for string in strings)


def test_text_passes_when_there_are_none():
    assert StopStrings([]).feed("anything") == "anything"
