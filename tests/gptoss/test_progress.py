"""The progress of a long task, as it is shown."""

import io
import threading

import pytest

from gptoss import progress
from gptoss.progress import Progress, PromptBar, bar, duration
from model.byte_sizes import format_bytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """A clock that the test advances."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_200_000, "4.2 MB"), (13_761_300_984, "13.8 GB")],
)
def test_sizes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3661, "1 h 01 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_has_one_line_with_the_speed_and_what_is_left(monkeypatch, clock):
    monkeypatch.setattr("sys.stderr", out := Terminal())
    with Progress("downloading", 10_000_000_000, done=1_000_000_000) as bar:
        for _ in range(4):
            clock.now += 1
            bar.add(500_000_000)
    first, *_, last = out.getvalue().split("\r")[1:]
    assert first == "downloading: 1.0 GB of 10.0 GB, 10 %\x1b[K"
    assert last == "downloading: 3.0 GB of 10.0 GB, 30 %, 500.0 MB/s, 14 s left\x1b[K\n"


def test_the_speed_is_of_the_last_seconds_and_not_of_the_first(monkeypatch, clock):
    """A slow beginning made the remaining time look like hours."""
    monkeypatch.setattr("sys.stderr", Terminal())
    with Progress("downloading", 100_000) as bar:
        clock.now += 1
        bar.add(2)
        assert "left" not in str(bar)
        for _ in range(12):
            clock.now += 1
            bar.add(1000)
        assert str(bar) == "12.0 kB of 100.0 kB, 12 %, 1.0 kB/s, 1 min 28 s left"


def test_a_terminal_is_not_drawn_on_for_every_chunk(monkeypatch, clock):
    monkeypatch.setattr("sys.stderr", out := Terminal())
    with Progress("checking", 1000) as bar:
        for _ in range(1000):
            bar.add(1)
    assert out.getvalue().count("\r") == 2
    assert out.getvalue().endswith("1.0 kB of 1.0 kB, 100 %\x1b[K\n")


def test_a_log_has_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    with Progress("checking", 1000, done=500) as bar:
        for _ in range(500):
            bar.add(1)
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("checking: 500 B of 1.0 kB, 50 %")
    assert lines[-1].startswith("checking: 1.0 kB of 1.0 kB, 100 %")


def test_bytes_of_several_threads_add_up(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with Progress("checking", 8000) as bar:
        threads = [threading.Thread(target=lambda: [bar.add(1) for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert str(bar).startswith("8.0 kB of 8.0 kB, 100 %")


def test_nothing_to_do_is_no_division_by_it(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with Progress("checking", 0) as bar:
        assert str(bar) == "0 B of 0 B, 0 %"


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "." * 20), (0.49, "#" * 10 + "." * 10), (1, "#" * 20), (7, "#" * 20)]
)
def test_a_bar_is_as_full_as_its_share(share, drawn):
    assert bar(share) == f"[{drawn}]"


def test_a_prompt_has_a_bar_with_its_speed_and_what_is_left(clock):
    """Steps of a long prompt take seconds each; the speed is shown after the second."""
    out = Terminal()
    line = PromptBar(out)
    for step in range(4):
        line.show(512 * step, 7511)
        clock.now += 10
    line.clear()
    line.clear()
    *_, last, cleared = out.getvalue().split("\r")
    assert last == "prompt [####................] 1536/7511 tokens, 51/s, 1 min 57 s left\x1b[K"
    assert cleared == "\x1b[K"


def test_a_prompts_bar_is_no_wider_than_the_terminal(monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", "30")
    PromptBar(out := Terminal()).show(1, 7511)
    assert out.getvalue() == "\rprompt [....................]\x1b[K"


def test_a_prompts_bar_is_for_terminals():
    PromptBar(out := io.StringIO()).show(1, 7511)
    assert out.getvalue() == ""
