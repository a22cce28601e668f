"""`gptoss batch`: a file of requests and a file of results."""

import json
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections import Counter

import pytest

from engine.errors import EngineDied, NonFinite, QueueFull
from gptoss.batch import client, lines
from gptoss.batch.run import SOME_FAILED, UNAVAILABLE, batch
from gptoss.start import StartError
from server.settings import Settings
from tests.gptoss.test_command_line import ROOT, environment
from tests.server.fakes import Pause, final, live

CHAT = "/v1/chat/completions"


def asked(id, text="Hi", url=CHAT, **body):
    match url:
        case "/v1/completions":
            body["prompt"] = text
        case "/v1/responses":
            body["input"] = text
        case _:
            body["messages"] = [{"role": "user", "content": text}]
    return {"custom_id": id, "method": "POST", "url": url, "body": body}


def write(path, *entries):
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in entries))
    return path


def results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(path):
    found = {each["custom_id"]: each for each in results(path)}
    assert len(found) == len(results(path)), "a result stands twice"
    return found


def at(server, source, target, **more):
    words = {"url": server.url, "key": None, "concurrency": None, **more}
    return batch(Settings(), Namespace(source=source, target=target, **words))


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


@pytest.fixture
def no_pauses(monkeypatch):
    """Pauses end at once; their lengths are recorded."""
    slept = []
    sleep = client.asyncio.sleep

    async def short(seconds, *more):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(client, "asyncio", Namespace(sleep=short))
    return slept


def test_requests_of_all_three_apis_are_answered_as_over_http(tiny_tokenizer, files, capfd):
    source, target = files
    write(source, asked("a"), asked("b", url="/v1/completions"), asked("c", url="/v1/responses"))
    with live(tiny_tokenizer, final("Hello!", thought="hm")) as server:
        assert at(server, source, target) == 0
    found = by_id(target)
    assert {each["response"]["status_code"] for each in found.values()} == {200}
    assert all(each["error"] is None and each["id"].startswith("batch_req_") for each in found.values())
    assert all(each["response"]["request_id"].startswith("req_") for each in found.values())
    assert found["a"]["response"]["body"]["choices"][0]["message"]["content"] == "Hello!"
    assert found["b"]["response"]["body"]["object"] == "text_completion"
    assert found["c"]["response"]["body"]["output"][-1]["content"][0]["text"] == "Hello!"
    printed = capfd.readouterr()
    assert "answering: 3 of 3 requests, 100 %" in printed.err
    assert f"{target}: 3 of 3 done, 0 of them errors" in printed.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "the line is not JSON"),
        ('{"custom_id": "x", "custom', "the line is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"a": NaN}', "the line is not JSON"),
        (asked(""), "custom_id: must be a text of 1 to 512 characters"),
        (asked(7), "custom_id: must be"),
        (asked("good"), "line 1 has the same custom_id"),
        (asked("x") | {"method": "GET"}, "method: must be POST"),
        (asked("x", url="/v1/embeddings"), "url: must be one of /v1/chat/completions, "),
        (asked("x") | {"body": "text"}, "body: must be a JSON object"),
        (asked("x", stream=True), "body.stream: a batch has no streams"),
        (asked("x", background=True, url="/v1/responses"), "body.background: a batch waits"),
    ],
)
def test_a_line_that_is_no_request_is_an_error_line_and_the_others_are_answered(
    tiny_tokenizer, files, line, said
):
    source, target = files
    write(source, asked("good"), line, "", asked("last"))
    with live(tiny_tokenizer, final("Hello!")) as server:
        assert at(server, source, target) == SOME_FAILED
        bad, *good = sorted(results(target), key=lambda each: each["error"] is None)
        assert {each["custom_id"] for each in good} == {"good", "last"}
        assert said in bad["error"]["message"]
        assert bad["error"]["line"] == 2
        assert bad["response"] is None
        assert at(server, source, target) == SOME_FAILED  # and nothing is written twice
        assert len(results(target)) == 3


def test_a_line_of_any_length_is_one_line(files, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 200)
    write(files[0], asked("a"), asked("b", "x" * 1000), asked("c", "y" * 5000), asked("d"))
    found = list(lines.read(files[0]))
    assert [type(each).__name__ for each in found] == ["Task", "BadLine", "BadLine", "Task"]
    assert [each.number for each in found] == [1, 2, 3, 4]
    assert "more than 200 bytes" in found[1].message


def test_what_the_api_refuses_is_a_result_with_its_status(tiny_tokenizer, files):
    source, target = files
    write(source, asked("hot", temperature=3), asked("other", model="gpt-4"), asked("fine", model="tiny"))
    with live(tiny_tokenizer, final("Hello!")) as server:
        assert at(server, source, target) == SOME_FAILED
    found = by_id(target)
    assert found["hot"]["response"]["status_code"] == 400
    assert found["hot"]["response"]["body"]["error"]["param"] == "temperature"
    assert found["other"]["response"]["status_code"] == 404
    assert found["fine"]["response"]["status_code"] == 200
    assert found["hot"]["error"] is None


def test_a_full_queue_is_waited_for_and_a_failure_is_tried_again(tiny_tokenizer, files, no_pauses):
    source, target = files
    write(source, asked("full"), asked("broken"), asked("once"))
    came = Counter()

    def script(request):
        name = next(n for n in ("full", "broken", "once") if n in tiny_tokenizer.decode(request.prompt))
        came[name] += 1
        if name == "full" and came[name] < 6:
            raise QueueFull(9, retry_after_seconds=7)
        if name == "broken" or (name == "once" and came[name] == 1):
            return [NonFinite()]
        return final("Hello!")

    write(source, *(asked(name, name) for name in ("full", "broken", "once")))
    with live(tiny_tokenizer, script) as server:
        assert at(server, source, target) == SOME_FAILED
    found = by_id(target)
    assert found["full"]["response"]["status_code"] == 200
    assert found["once"]["response"]["status_code"] == 200
    assert found["broken"]["response"]["status_code"] == 500
    assert found["broken"]["response"]["body"]["error"]["code"] == "non_finite_logits"
    assert came == {"full": 6, "broken": 3, "once": 2}
    assert 7 in no_pauses


def test_a_server_that_is_gone_ends_the_run_and_the_next_goes_on(
    tiny_tokenizer, files, no_pauses, monkeypatch
):
    source, target = files
    write(source, *(asked(f"id-{i}", f"<{i}>") for i in range(6)))
    gone = True

    def script(request):
        text = tiny_tokenizer.decode(request.prompt)
        if gone and not ("<0>" in text or "<1>" in text):
            if target.read_text().count("\n") == 2:  # not before: a slow machine takes its time for these
                monkeypatch.setattr(client, "PATIENCE_SECONDS", 0)
            raise EngineDied()
        return final("Hello!")

    monkeypatch.setattr(client, "PATIENCE_SECONDS", 60)
    with live(tiny_tokenizer, script) as server:
        assert at(server, source, target) == UNAVAILABLE
        assert set(by_id(target)) == {"id-0", "id-1"}
        gone = False
        assert at(server, source, target) == 0
    assert len(by_id(target)) == 6


def test_nobody_at_the_url(files, no_pauses, monkeypatch, capfd):
    write(files[0], asked("a"))
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.1)
    words = Namespace(source=files[0], target=files[1], url="http://127.0.0.1:9", key=None, concurrency=None)
    assert batch(Settings(), words) == UNAVAILABLE
    assert results(files[1]) == []
    assert "the server does not answer any more: no connection" in capfd.readouterr().out


def test_no_more_than_so_many_are_under_way(tiny_tokenizer, files):
    source, target = files
    write(source, *(asked(f"id-{i}") for i in range(12)))
    most = 0

    def script(request):
        nonlocal most
        most = max(most, len(server.worker.open) + 1)
        return [Pause(0.02), final("Hello!")]

    with live(tiny_tokenizer, script) as server:
        assert at(server, source, target, concurrency=3) == 0
    assert most == 3


def test_a_part_of_a_line_is_cut_and_its_request_asked_again(tiny_tokenizer, files):
    source, target = files
    write(source, *(asked(f"id-{i}") for i in range(4)))
    with live(tiny_tokenizer, final("Hello!")) as server:
        at(server, source, target)
        whole = target.read_bytes().splitlines(keepends=True)
        for part in (1, 10, len(whole[2]) - 1):
            kept = b"".join(whole[:2])
            target.write_bytes(kept + whole[2][:part])
            assert at(server, source, target) == 0
            assert target.read_bytes().startswith(kept)
            assert len(by_id(target)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("my thesis, without a last newline", "line 1: this is not a result of a batch"),
        ("a\nb\n", "line 1: this is not a result of a batch"),
        ('{"id": "batch_req_1", "custom_id": "a"}\n', "line 1: this is not a result of a batch"),
        ('{"id": "batch_req_1", "custom_id": "other", "response": {"status_code": 200}, "error": null}\n',
         "the results have 1 requests that"),
    ],
)  # fmt: skip
def test_a_file_that_holds_anything_else_is_left_alone(files, text, said):
    source, target = files
    write(source, asked("a"))
    target.write_text(text)
    words = Namespace(source=source, target=target, url="http://127.0.0.1:9", key=None, concurrency=None)
    with pytest.raises(StartError, match=said):
        batch(Settings(), words)
    assert target.read_text() == text


def test_the_file_of_requests_is_never_written_to(files):
    source, _ = files
    write(source, asked("a"))
    before = source.read_text()
    words = Namespace(source=source, target=source, url=None, key=None, concurrency=None)
    with pytest.raises(StartError, match="cannot be written to the file of requests"):
        batch(Settings(), words)
    assert source.read_text() == before


def test_one_run_at_a_time_has_the_results(tiny_tokenizer, files):
    source, target = files
    write(source, asked("a"))
    began, go = threading.Event(), threading.Event()

    def script(request):
        began.set()
        assert go.wait(20)
        return final("Hello!")

    with live(tiny_tokenizer, script) as server:
        codes = []
        first = threading.Thread(target=lambda: codes.append(_in_a_process(server, source, target)))
        first.start()
        assert began.wait(60)
        with pytest.raises(StartError, match="another run writes to it"):
            at(server, source, target)
        go.set()
        first.join(60)
    assert codes == [0]


def _in_a_process(server, source, target):
    """Signals go to the main thread of a process, so a run in another thread needs a process of its own."""
    return subprocess.run(
        _command(source, target, "--url", server.url), cwd=ROOT, env=environment()
    ).returncode


def _command(source, target, *more):
    return [sys.executable, "-m", "gptoss", "batch", str(source), str(target), *map(str, more)]


def wait_for_lines(path, number, process):
    end = time.monotonic() + 90
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_after_a_kill_in_the_midst_nothing_is_lost_and_nothing_stands_twice(files, how):
    """With the demo model, in this process."""
    source, target = files
    url = ["/v1/completions", CHAT, "/v1/responses"]
    write(source, *(asked(f"id-{i}", f"Number {i}", url[i % 3]) for i in range(24)))
    words = _command(source, target, "--max-running", 2, "--threads", 1)
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_lines(target, 5, process)
    process.send_signal(how)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + 15)
    assert how == signal.SIGKILL or "run the same command again to do the rest" in printed
    before = target.read_bytes().rpartition(b"\n")[0] + b"\n"
    assert 5 <= before.count(b"\n") < 24, "it was killed in the midst"
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes().startswith(before)
    assert set(by_id(target)) == {f"id-{i}" for i in range(24)}
    assert {each["response"]["status_code"] for each in results(target)} == {200}


def test_settings_of_the_model_mean_nothing_with_a_url():
    words = [sys.executable, "-m", "gptoss", "batch", "a", "b", "--url", "localhost", "--threads", "1"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gptoss: --threads has no effect with --url: the server there has its own\n"


@pytest.mark.exhaustive
def test_a_model_that_is_split_answers_a_file_and_leaves_no_process(files):
    """The ranks inherit this command's pipes, so its output would not end while one of them is running."""
    source, target = files
    write(source, *(asked(f"id-{i}", f"Number {i}", "/v1/completions", max_tokens=4) for i in range(4)))
    words = _command(source, target, "--tensor-parallel", 2, "--backend", "reference")
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 done, 0 of them errors" in done.stdout
    assert {each["response"]["status_code"] for each in by_id(target).values()} == {200}
