"""The prefix cache on disk: which pages are stored, and how many of them are found again."""

import os
import stat
import threading
import time

import pytest

from engine.disk.files import space
from tests.engine.disk.restarts import PROMPT, SMALL, files, files_of, served
from tests.tools.traffic.historian import answer, ask, finish, ids, make_engine
from tests.tools.traffic.traffic import Traffic


def test_a_prompt_is_found_again_after_a_restart(tmp_path):
    cached, before = served(tmp_path)
    assert cached == [0]
    assert before.prefix_disk_hits == 0
    cached, after = served(tmp_path)
    assert cached == [148], "all but the last page, whose last token is always computed"
    assert after.prefix_disk_hits == 148 == after.prefix_hits
    assert after.disk_faults == 0
    assert after.disk_bytes == sum(space(64) for _ in files(tmp_path)), "4 positions, keys and values"


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
    """The same requests twice, so that all written pages are found, and then other requests."""
    for traffic in (seed, seed, 1000 + seed):
        Traffic(traffic, disk=tmp_path, own_pools=seed % 3 == 0).run()


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


def test_names_say_nothing_without_the_secret(tmp_path):
    served(tmp_path / "a")
    served(tmp_path / "b")
    assert not {path.name for path in files(tmp_path / "a")} & {path.name for path in files(tmp_path / "b")}


def test_a_step_never_waits_for_the_disk_to_write(tmp_path, monkeypatch):
    gate = threading.Event()
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
