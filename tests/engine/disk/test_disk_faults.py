"""The prefix cache on disk: a problem with a file or the disk costs at most the computation of pages."""

import errno
import logging
import os
import random
import threading
import time
from dataclasses import replace

import pytest

from engine.disk import cache
from engine.disk.files import PageFiles, Unusable
from engine.errors import NonFinite
from engine.request import Failure
from tests.engine.disk.restarts import PROMPT, SMALL, files, served
from tests.tools.traffic.historian import answer, ask, finish, ids, make_engine
from tests.tools.traffic.traffic import Traffic


@pytest.mark.parametrize("seed", [1, 3, 4, 9])  # of those that find something on disk
def test_with_a_vandal_among_the_files_every_answer_is_its_own(seed, tmp_path, caplog):
    """Files are changed, truncated, deleted, swapped and emptied while they are used."""
    caplog.set_level(logging.CRITICAL, "engine")
    vandal = random.Random(seed)
    for _ in range(3):
        traffic = Traffic(seed, disk=tmp_path, disk_bytes=vandal.choice((40, 400)) * 4096)
        step = traffic.engine.step

        def spoiled(step=step):
            if vandal.random() < 0.05 and (all_files := files(tmp_path)):
                spoil(vandal.choice(all_files), vandal.choice(all_files), vandal)
            return step()

        traffic.engine.step = spoiled
        traffic.run()
        assert traffic.engine.stats().disk_bytes <= 400 * 4096


def spoil(path, other, vandal):
    try:
        match vandal.randrange(5):
            case 0:
                flip(path, vandal.randrange(max(1, path.stat().st_size)))
            case 1:
                os.truncate(path, vandal.randrange(path.stat().st_size + 9))
            case 2:
                path.unlink()
            case 3:
                os.replace(path, other)
            case 4:
                path.write_bytes(b"")
    except FileNotFoundError:
        pass


def flip(path, byte, bit=0):
    contents = bytearray(path.read_bytes()) or bytearray(1)
    contents[byte] ^= 1 << bit
    path.write_bytes(contents)


# One fault at a time


def spoiled(folder, caplog, **wanted):
    """Answer again after files were damaged.  Returns the cached tokens, and what was logged."""
    caplog.clear()
    caplog.set_level(logging.INFO, "engine")
    [cached], stats = served(folder)
    return cached, stats, [record.getMessage() for record in caplog.records]


def page(folder, place, kind="f"):
    """The file of the page at `place` of PROMPT."""
    engine = make_engine(SMALL, folder)
    pages, hashes = engine._scheduler.pages, []
    engine.close()
    pages.extend_hashes(hashes, PROMPT, place + 1)
    [path] = folder.glob(f"*/{kind}{hashes[place].hex()}")
    return path


@pytest.mark.parametrize("byte", [0, 13, 20, 30, 31, 48, 60, 70, 115, -1])
def test_a_bit_flipped_anywhere_costs_a_computation_and_a_line(tmp_path, caplog, byte):
    served(tmp_path)
    path = page(tmp_path, 20)
    flip(path, byte)
    cached, stats, lines = spoiled(tmp_path, caplog)
    assert 60 <= cached <= 80, "up to the page before, from the nearest place"
    assert stats.disk_faults == 1
    assert any(path.name in line and "computed again" in line for line in lines)
    assert spoiled(tmp_path, caplog)[0] == 148, "and it was written again"


@pytest.mark.parametrize("size", [0, 1, 50, 146, 148])
def test_a_file_that_was_cut_or_grew_costs_a_computation_and_a_line(tmp_path, caplog, size):
    served(tmp_path)
    path = page(tmp_path, 20)
    assert path.stat().st_size == 147 + 4
    os.truncate(path, size if size < 148 else 200)
    cached, stats, lines = spoiled(tmp_path, caplog)
    assert cached <= 80
    assert stats.disk_faults == 1
    assert any("bytes instead of" in line for line in lines)


def test_a_page_under_another_ones_name_is_not_taken_for_it(tmp_path, caplog):
    served(tmp_path)
    one, other = page(tmp_path, 20), page(tmp_path, 21)
    one.write_bytes(other.read_bytes())
    cached, stats, _ = spoiled(tmp_path, caplog)
    assert cached <= 80
    assert stats.disk_faults == 1


def test_another_caches_pages_are_not_looked_at_but_counted(tmp_path):
    served(tmp_path)
    own = len(files(tmp_path))
    other = replace(SMALL, window=5)
    cached, stats = served(tmp_path, limits=other)
    assert cached == [0]
    assert stats.disk_bytes == 4096 * len(files(tmp_path)) > 4096 * own
    assert served(tmp_path)[0] == [148], "and are left alone"


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_disk_that_cannot_be_read_costs_a_computation_and_a_line(tmp_path, caplog, monkeypatch, error):
    served(tmp_path)

    def broken(*arguments):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "preadv", broken)
    cached, stats, lines = spoiled(tmp_path, caplog)
    assert cached == 0
    assert stats.disk_faults >= 1
    assert any(os.strerror(error) in line for line in lines)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_cannot_be_written_costs_a_line_and_is_left_alone(tmp_path, caplog, monkeypatch, error):
    tried = []

    def broken(*arguments):
        tried.append(arguments)
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", broken)
        _, stats, lines = spoiled(tmp_path, caplog)
    assert len(tried) == 1 == stats.disk_faults, "once, and not again for a minute"
    assert [line for line in lines if os.strerror(error) in line and "not written for 60 s" in line]
    assert not list(tmp_path.glob("*/*")), "nothing is left behind"
    assert served(tmp_path)[0] == [0], "and when there is room again"
    assert served(tmp_path)[0] == [148]


def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_none(tmp_path, caplog, monkeypatch):
    write = os.writev
    monkeypatch.setattr(os, "writev", lambda file, parts: write(file, [parts[0], parts[1][:20]]))
    _, stats, lines = spoiled(tmp_path, caplog)
    assert stats.disk_faults == 1
    assert any(os.strerror(errno.ENOSPC) in line for line in lines)
    assert not list(tmp_path.glob("*/*"))


def test_a_disk_that_never_answers_is_not_waited_for(tmp_path, caplog, monkeypatch):
    served(tmp_path)
    monkeypatch.setattr(cache, "STALL_SECONDS", 0.2)
    gate = threading.Event()
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: gate.wait(20) and read(*arguments))
    engine = make_engine(SMALL, tmp_path)
    try:
        engine.add(ask("a", PROMPT))
        assert ids(finish(engine)["a"]) == answer(PROMPT, 5, SMALL.window)
        assert "has not answered" in caplog.text
        assert engine.stats().prefix_hits == 0
    finally:
        gate.set()
        engine.close()


def reads_wait(monkeypatch):
    """Yields two events: reads from disk wait for the first; the second is set when a read begins."""
    gate, asked = threading.Event(), threading.Event()
    read = os.preadv

    def slow(*arguments):
        asked.set()
        gate.wait(20)
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
    return gate, asked


def test_who_leaves_while_pages_come_leaves_nothing_behind(tmp_path, monkeypatch):
    served(tmp_path)
    gate, asked = reads_wait(monkeypatch)
    engine = make_engine(SMALL, tmp_path)
    try:
        engine.add(ask("a", PROMPT))
        engine.step()
        assert asked.wait(20)
        assert engine.stats().pages_free < SMALL.num_pages
        engine.cancel("a")
        assert engine.stats().pages_free == SMALL.num_pages
        gate.set()
        engine.add(ask("b", PROMPT))
        assert ids(finish(engine)["b"]) == answer(PROMPT, 5, SMALL.window)
        engine._scheduler.pages.check()
    finally:
        gate.set()
        engine.close()


def test_a_page_that_comes_too_late_is_written_nowhere(tmp_path, monkeypatch):
    """The request that waited for it has been cancelled, and another one uses its place in memory."""
    served(tmp_path)
    gate, asked = reads_wait(monkeypatch)
    engine = make_engine(SMALL, tmp_path)
    try:
        engine.add(ask("a", PROMPT))
        engine.step()
        assert asked.wait(20)
        engine.cancel("a")
        others = [96 - token for token in PROMPT]
        engine.add(ask("b", others))
        engine.step()
        gate.set()
        until = time.monotonic() + 20
        while not engine._disk.store.finished and time.monotonic() < until:
            time.sleep(0.002)
        assert engine._disk.store.finished[0].succeeded
        assert ids(finish(engine)["b"]) == answer(others, 5, SMALL.window)
    finally:
        gate.set()
        engine.close()


def test_a_secret_that_others_could_read_is_refused(tmp_path):
    served(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(Unusable, match="nobody else may read it"):
        PageFiles(tmp_path, "any")


def test_with_another_secret_nothing_is_found_and_nothing_believed(tmp_path):
    served(tmp_path)
    (tmp_path / "secret").write_bytes(b"too short")
    assert served(tmp_path)[0] == [0], "one that is not whole is made anew"
    assert served(tmp_path)[0] == [148]


def test_what_a_crash_left_half_written_is_deleted(tmp_path):
    served(tmp_path)
    folder = files(tmp_path)[0].parent
    (folder / "new-0123").write_bytes(b"half")
    served(tmp_path)
    assert not list(folder.glob("new-*"))


def test_pages_of_a_prompt_that_made_no_sense_are_not_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTOSS_FAULT", "step:3=nan")
    engine = make_engine(SMALL, tmp_path)
    engine.add(ask("a", PROMPT))
    [*_, last] = finish(engine)["a"]
    assert isinstance(last, Failure)
    assert isinstance(last.error, NonFinite)
    engine.close()
    assert not files(tmp_path)
