"""Prefix pages on disk: what comes back is what was computed, and whatever happens to the files costs no more
than computing them again.
"""

import errno
import logging
import os
import random
import stat
import time
from dataclasses import replace

import pytest

from engine import disk_cache, page_files, page_store
from engine.errors import NonFinite
from engine.page_files import PageFiles, Unusable
from engine.request import Failure
from tests.tools.traffic.historian import LIMITS, answer, ask, finish, ids, make_engine
from tests.tools.traffic.traffic import Traffic

SMALL = replace(LIMITS, num_pages=200, max_context=300, max_tokens_per_step=64)
PROMPT = [7 * i % 97 for i in range(150)]


@pytest.fixture(autouse=True)
def short_prompts_are_long(monkeypatch):
    monkeypatch.setattr(disk_cache, "LONG_PROMPT", 8)
    monkeypatch.setattr(disk_cache, "RESUME_EVERY", 20)
    monkeypatch.setattr(disk_cache, "RESUME_LAST", 12)


def served(folder, *prompts, disk_bytes=2**30, limits=SMALL):
    """Start, answer the prompts one by one, and stop.  Tokens that the cache had of each; the last stats."""
    engine = make_engine(limits, folder, disk_bytes)
    cached = []
    try:
        for prompt in prompts or (PROMPT,):
            engine.add(ask("a", prompt))
            events = finish(engine)["a"]
            assert ids(events) == answer(prompt, 5, limits.window)
            cached.append(events[0].prefill.cached_tokens)
    finally:
        engine.close()
    return cached, engine.stats()


def files(folder):
    return sorted(folder.glob("*/[bf]*"))


def test_a_prompt_is_found_again_after_a_restart(tmp_path):
    cached, before = served(tmp_path)
    assert cached == [0]
    assert before.prefix_disk_hits == 0
    cached, after = served(tmp_path)
    assert cached == [148], "all but the last page, whose last token is always computed"
    assert after.prefix_disk_hits == 148 == after.prefix_hits
    assert after.disk_faults == 0
    assert after.disk_bytes == sum(page_files.space(64) for _ in files(tmp_path)), (
        "4 positions, keys and values"
    )


def test_what_memory_has_is_not_fetched(tmp_path):
    served(tmp_path)
    cached, stats = served(tmp_path, PROMPT, PROMPT)
    assert cached == [148, 148]
    assert stats.prefix_disk_hits == 148


@pytest.mark.parametrize("common", [150, 147, 141, 139, 99, 55, 30])
def test_a_prompt_that_goes_on_differently_is_continued_from_the_nearest_place(tmp_path, common):
    served(tmp_path)
    [cached], _ = served(tmp_path, PROMPT[:common] + [96] * 20)
    assert cached <= common
    assert cached >= (common - 3 if common >= 139 else common // 20 * 20), (
        "pages of 4, near the end and at every 20"
    )


def test_where_prompts_were_seen_to_differ_they_can_be_continued(tmp_path):
    served(tmp_path, PROMPT, PROMPT[:75] + [96] * 10)
    [cached], _ = served(tmp_path, PROMPT[:75] + [95] * 10)
    assert cached == 72


def test_a_short_prompt_is_kept_when_it_is_seen_again(tmp_path):
    served(tmp_path, PROMPT[:7])
    assert not files(tmp_path)
    served(tmp_path, PROMPT[:7], PROMPT[:7])
    assert len(files(tmp_path)) == 2, "one page, of each kind"


def test_banded_pages_are_kept_only_where_a_prompt_can_be_continued(tmp_path):
    served(tmp_path)
    kinds = [path.name[0] for path in files(tmp_path)]
    assert kinds.count("f") == 37
    # A window of 6 sees two pages of 4: those before 20, 40 … 120; from page 34 on it is seen from anywhere.
    assert kinds.count("b") == 6 * 2 + 5


@pytest.mark.parametrize("seed", range(10))
def test_under_random_traffic_every_answer_is_its_own_from_disk_too(seed, order, tmp_path):
    """Twice the same traffic, so that all is found that was written, and then other traffic."""
    for traffic in (seed, seed, 1000 + seed):
        Traffic(traffic, disk=tmp_path, own_pools=seed % 3 == 0).run()


@pytest.mark.parametrize("seed", [1, 3, 4, 9])  # of those that find something on disk
def test_with_a_vandal_among_the_files_every_answer_is_its_own(seed, tmp_path, caplog):
    """He flips bits, cuts, deletes, swaps and empties them, while they are used."""
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
    """Answer again, with files that were spoiled: what the cache had, and what was logged."""
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
    monkeypatch.setattr(disk_cache, "STALL_SECONDS", 0.2)
    gate = page_store.threading.Event()
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


def test_who_leaves_while_pages_come_leaves_nothing_behind(tmp_path, monkeypatch):
    served(tmp_path)
    gate, asked = page_store.threading.Event(), page_store.threading.Event()
    read = os.preadv

    def slow(*arguments):
        asked.set()
        gate.wait(20)
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
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
    """Whoever waited for it has left, and its place in memory is somebody else's."""
    served(tmp_path)
    gate, asked = page_store.threading.Event(), page_store.threading.Event()
    read = os.preadv

    def slow(*arguments):
        asked.set()
        gate.wait(20)
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
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


def test_of_two_servers_one_writes_and_both_read(tmp_path, caplog):
    served(tmp_path, PROMPT)
    first = make_engine(SMALL, tmp_path)
    second = make_engine(SMALL, tmp_path)
    assert "another server writes" in caplog.text
    others = [96 - token for token in PROMPT]
    for engine, prompt, kept in (
        (second, PROMPT, 148),
        (second, others, 0),
        (first, PROMPT, 148),
        (first, others, 0),
    ):
        before = len(files(tmp_path))
        engine.add(ask("a", prompt))
        events = finish(engine)["a"]
        assert ids(events) == answer(prompt, 5, SMALL.window)
        assert events[0].prefill.cached_tokens == kept
        assert engine is first or len(files(tmp_path)) == before
    first.close()
    assert len(files(tmp_path)) > before
    second._disk.store._lock_asked_at = float("-inf")
    more = [token // 2 for token in PROMPT]
    second.add(ask("a", more))
    finish(second)
    second.close()
    assert served(tmp_path, more, others)[0] == [148, 148], "who was second writes when the first is gone"


def test_files_deleted_by_the_other_server_are_computed_again(tmp_path, caplog):
    served(tmp_path)
    engine = make_engine(SMALL, tmp_path)
    for path in files(tmp_path):
        path.unlink()
    engine.add(ask("a", PROMPT))
    assert ids(finish(engine)["a"]) == answer(PROMPT, 5, SMALL.window)
    engine.close()
    assert served(tmp_path)[0] == [148]


def test_what_is_on_disk_is_bounded_and_the_least_used_goes_first(tmp_path):
    prompts = [[(11 * i + k) % 97 for i in range(41)] for k in range(4)]
    each = len(files_of(tmp_path / "one", prompts[0]))
    folder = tmp_path / "all"
    limit = (3 * each + 1) * 4096
    served(folder, *prompts[:3], disk_bytes=limit)
    served(folder, prompts[0], disk_bytes=limit)  # used again
    _, stats = served(folder, prompts[3], disk_bytes=limit)
    assert stats.disk_bytes <= limit
    found = [served(folder, prompt, disk_bytes=1)[0][0] for prompt in (prompts[0], prompts[2], prompts[3])]
    assert found == [40, 40, 40]
    assert served(folder, prompts[1], disk_bytes=1)[0][0] < 40, "its end went first"


def files_of(folder, prompt):
    served(folder, prompt)
    return files(folder)


def test_a_prompt_larger_than_the_bound_keeps_its_beginning(tmp_path):
    served(tmp_path, disk_bytes=20 * 4096)
    assert len(files(tmp_path)) == 20
    [cached], _ = served(tmp_path, disk_bytes=20 * 4096)
    assert cached >= 40


def test_only_the_servers_user_can_read_the_files(tmp_path):
    before = os.umask(0)
    try:
        served(folder := tmp_path / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_secret_that_others_could_read_is_refused(tmp_path):
    served(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(Unusable, match="nobody else can read"):
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


def test_names_say_nothing_without_the_secret(tmp_path):
    served(tmp_path / "a")
    served(tmp_path / "b")
    assert not {path.name for path in files(tmp_path / "a")} & {path.name for path in files(tmp_path / "b")}


def test_pages_of_a_prompt_that_made_no_sense_are_not_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTOSS_FAULT", "step:3=nan")
    engine = make_engine(SMALL, tmp_path)
    engine.add(ask("a", PROMPT))
    [*_, last] = finish(engine)["a"]
    assert isinstance(last, Failure)
    assert isinstance(last.error, NonFinite)
    engine.close()
    assert not files(tmp_path)


def test_a_step_never_waits_for_the_disk_to_write(tmp_path, monkeypatch):
    gate = page_store.threading.Event()
    write = os.writev
    monkeypatch.setattr(os, "writev", lambda *arguments: gate.wait(20) and write(*arguments))
    engine = make_engine(SMALL, tmp_path)
    try:
        engine.add(ask("a", PROMPT))
        events = []
        until = time.monotonic() + 20
        while not (events and events[-1].finish):
            events += engine.step()
            assert time.monotonic() < until
        assert ids(events) == answer(PROMPT, 5, SMALL.window)
        assert not files(tmp_path), "and not one page is on disk yet"
    finally:
        gate.set()
        engine.close()


def test_who_ends_at_once_still_writes_what_is_worth_keeping(tmp_path):
    engine = make_engine(SMALL, tmp_path)
    engine.add(ask("a", PROMPT, max_tokens=1))
    while "a" in engine._sequences:
        engine.step()
    assert engine.busy, "there are pages left to copy out"
    engine.close()
    assert served(tmp_path)[0] == [148]
