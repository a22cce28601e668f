"""How far a long piece of work is, as it is shown."""

import io
import threading

import pytest

from gptoss import progress
from gptoss.progress import Progress, duration, gigabytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that pass when they are told to."""

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
    assert gigabytes(size) == text


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
    """A connection takes its time to begin: the hours that this seemed to leave were shown for long."""
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
