"""The command `gptoss` as a process, as a user or a supervisor starts it."""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gptoss.__main__ import THE_NAMES, main
from gptoss.assembly import assemble
from gptoss.start import StartError
from server.settings import Settings
from tests import tiny_checkpoint
from tests.server.fakes import byte_tokenizer
from tests.server.test_endings import wait_for

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A very small random gpt-oss whose vocabulary is the bytes."""
    folder = tmp_path_factory.mktemp("models") / "gpt-oss-tiny"
    folder.mkdir()
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300, initial_context_length=1024)
    tiny_checkpoint.write(folder, config=config)
    byte_tokenizer(folder)
    return folder


def environment(**more):
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GPTOSS_")}
    return {**ours, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def gptoss(monkeypatch, capsys):
    """Run the command in this process.  Returns its exit code and its output."""
    monkeypatch.setattr("server.logs.configure", lambda level, form: None)  # pytest has its own

    def run(*words, **environ):
        monkeypatch.setattr("sys.argv", ["gptoss", *map(str, words)])
        monkeypatch.setattr("os.environ", environment(**environ))
        with pytest.raises(SystemExit) as exit:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(words, exit.value.code or 0, printed.out, printed.err)

    return run


@contextmanager
def serving(checkpoint, *flags, **environ):
    """Run `gptoss serve` on a free port.  Yields the process and its URL."""
    words = ["serve", "--model", checkpoint, "--backend", "reference", "--port", "0", *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "gptoss", *map(str, words)],
        cwd=ROOT, env=environment(**environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        banner = []
        while not banner or not banner[-1].startswith("listening on "):
            banner.append(process.stdout.readline().strip())
            assert banner[-1], process.stderr.read()
        yield process, banner[-1].removeprefix("listening on "), banner
    finally:
        process.kill()
        process.communicate()


def endless(url):
    """A long stream that has begun."""
    body = {"prompt": "a", "max_tokens": 3000, "ignore_eos": True, "stream": True}
    client = httpx.Client(timeout=60)
    answer = client.send(client.build_request("POST", url + "/v1/completions", json=body), stream=True)
    lines = answer.iter_lines()
    assert next(lines).startswith("data: {")
    return lines


def ending(lines):
    *_, last, done = [line for line in lines if line.startswith("data:")]
    return json.loads(last.removeprefix("data: ")), done


def assert_one_line(result):
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("gptoss: ")
    return result.stderr


def test_help_answers_without_torch():
    code = (
        "import sys; from gptoss.__main__ import main\n"
        "sys.argv = ['gptoss', 'serve', '--help']\n"
        "try: main()\nfinally: assert not {'torch', 'fastapi', 'tokenizers'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--max-queued" in result.stdout


def test_the_version_is_told(gptoss):
    result = gptoss("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"gptoss \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--port", "none"],
        ["serve", "--unknown"],
        ["serve", "--por", "8000"],
        ["generate"],
        ["generate", "x", "--temperature", "-1"],
        ["generate", "x", "--max-tokens", "0"],
        ["generate", "x", "--port", "80"],
        ["dance"],
        [],
    ],
)
def test_a_bad_word_is_one_line(gptoss, words):
    assert_one_line(gptoss(*words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], f"a command is missing: {THE_NAMES}; `gptoss --help` describes them"),
        (["sreve"], "there is no command sreve; did you mean serve?"),
        (["dance"], f"there is no command dance; there are {THE_NAMES}"),
        (["serve", "--prot", "1"], "there is no --prot; did you mean --port?"),
        (["serve", "--max-model-len", "1"], "there is no --max-model-len; here it is --max-context"),
        (["serve", "-ngl", "99"], "there is no -ngl; here it is --device: all of a model is on one device"),
        (["serve", "--jinja"], "there is no --jinja; not needed: this server always does it"),
        (["serve", "one", "--model", "two"], "MODEL: 'one' is named, and --model 'two' too"),
        (["serve", "--max-context", "999999"], "--max-context 999999: this model's context is 4096 tokens"),
    ],
)
def test_a_word_that_is_missing_or_misspelt_is_told(gptoss, words, said):
    assert assert_one_line(gptoss(*words)) == f"gptoss: {said}\n"


@pytest.mark.exhaustive
def test_torch_does_not_complain_that_there_is_no_numpy(tmp_path):
    """`pip install gptoss` does not install NumPy, and each start printed a warning of torch."""
    script = tmp_path / "without_numpy.py"
    script.write_text(
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "sys.argv = ['gptoss', 'generate', 'x', '--device', 'abacus']\n"
        "from gptoss.__main__ import main\n"
        "main()\n"
    )
    started = environment(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, script], env=started, capture_output=True, text=True)
    assert "abacus" in assert_one_line(done)


def test_a_bad_variable_is_one_line(gptoss):
    assert "GPTOSS_PROT" in assert_one_line(gptoss("serve", GPTOSS_PROT="8000"))


def test_a_taken_port_is_one_line_and_found_before_the_model_is_loaded(gptoss, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = assert_one_line(gptoss("serve", "--port", port, "--model", tmp_path / "nowhere"))
    assert str(port) in said
    assert "in use" in said


@pytest.mark.parametrize("command", [["serve", "--port", 0], ["generate", "x"]])
def test_a_missing_folder_is_one_line(gptoss, command, tmp_path):
    assert str(tmp_path) in assert_one_line(gptoss(*command, "--model", tmp_path / "nowhere"))


def test_a_process_that_cannot_start_has_no_traceback(tmp_path):
    words = [sys.executable, "-m", "gptoss", "serve", "--port", "0", "--model", tmp_path / "nowhere"]
    assert_one_line(subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True))


def damaged(checkpoint, folder, how):
    shutil.copytree(checkpoint, folder)
    match how:
        case "empty":
            for file in folder.iterdir():
                file.unlink()
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "truncated":
            file = folder / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-1000])
        case "not safetensors":
            (folder / "model.safetensors").write_bytes(b"hello")
        case "config is no JSON":
            (folder / "config.json").write_text("{")
        case "another architecture":
            (folder / "config.json").write_text(
                '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
            )
        case "not a tokenizer":
            (folder / "tokenizer.json").write_text("{}")
        case "another tokenizer":
            whole = json.loads((folder / "tokenizer.json").read_text())
            whole["added_tokens"] = []
            (folder / "tokenizer.json").write_text(json.dumps(whole))
        case "too many tokens":
            whole = json.loads((folder / "tokenizer.json").read_text())
            whole["model"]["vocab"] |= {f"a{i}": 256 + i for i in range(100)}
            (folder / "tokenizer.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "no tokenizer",
        "no weights",
        "truncated",
        "not safetensors",
        "config is no JSON",
        "another architecture",
        "not a tokenizer",
        "another tokenizer",
        "too many tokens",
    ],
)
def test_a_folder_that_will_not_do_is_said_in_one_line(checkpoint, tmp_path, how):
    with pytest.raises(StartError) as error:
        assemble(Settings(model=damaged(checkpoint, tmp_path / "model", how), backend="reference"))
    assert str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "meta"}, "meta"),
        ({"backend": "magic"}, "magic"),
        ({"threads": 2}, "--threads"),
        ({"kv_cache_memory": 1}, "memory"),
        ({"kv_cache_memory": 2**60}, "memory"),
    ],
)
def test_a_setting_that_cannot_be_met_is_said_in_one_line(checkpoint, asked, hint):
    with pytest.raises(StartError, match=hint) as error:
        assemble(Settings(**{"model": checkpoint, "backend": "reference", **asked}))
    assert "\n" not in str(error.value)


def test_the_model_is_named_after_its_folder(checkpoint, tmp_path):
    (tmp_path / "gpt-oss-99b").mkdir()
    shutil.copytree(checkpoint, tmp_path / "gpt-oss-99b" / "original")
    original = assemble(Settings(model=tmp_path / "gpt-oss-99b" / "original", backend="reference"))
    named = assemble(
        Settings(model=checkpoint, backend="reference", served_model_name=("org/my-model", "other"))
    )
    assert (original.model_id, named.model_id) == ("gpt-oss-99b", "org/my-model")
    assert original.fingerprint == named.fingerprint  # the same weights
    assert re.fullmatch(r"fp_[0-9a-f]{12}", named.fingerprint)


def test_ids_that_the_tokenizer_does_not_know_are_never_sampled(checkpoint):
    """The model has 300 rows and the tokenizer 266 tokens."""
    assert assemble(Settings(model=checkpoint, backend="reference")).engine._runner.vocab_size == 266


def test_a_smaller_share_of_memory_has_fewer_pages(checkpoint):
    """A million sequences could use all memory, so that the share is the limit."""

    def pages(share):
        asked = Settings(model=checkpoint, backend="reference", max_running=10**6, kv_cache_fraction=share)
        return assemble(asked).engine.limits.num_pages

    assert pages(0.002) < 0.75 * pages(0.004)


def test_a_model_is_prepared_for_as_many_answers_as_may_run(checkpoint, monkeypatch):
    """Before, a GPU's graphs were captured during answers, when a step first had its size."""
    prepared = []

    def prepare(model, cache, rows):
        prepared.append((cache, rows))

    monkeypatch.setattr("model.backends.reference.gpt_oss.GptOss.prepare", prepare, raising=False)
    engine = assemble(Settings(model=checkpoint, backend="reference", max_running=7)).engine
    assert prepared == [(engine._runner.cache, 7)]


def test_a_server_that_is_told_to_stop_drains_and_exits_with_0(checkpoint):
    with serving(checkpoint, "--grace", "3", "--date", "2025-06-28") as (process, url, banner):
        assert "gpt-oss-tiny" in banner[0]
        assert "reference" in banner[1]
        assert any(line.startswith("memory:") for line in banner)
        assert httpx.get(url + "/ready", timeout=30).status_code == 200
        answer = httpx.post(url + CHAT, json={**HI, "max_tokens": 5, "model": "gpt-oss-tiny"}, timeout=30)
        assert answer.json()["usage"]["completion_tokens"] <= 5
        lines = endless(url)
        process.send_signal(signal.SIGTERM)
        assert wait_for(lambda: httpx.get(url + "/ready", timeout=30).status_code == 503)
        refused = httpx.post(url + CHAT, json=HI, timeout=30)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        error, done = ending(lines)
        assert error["error"]["code"] == "shutting_down"
        assert done == "data: [DONE]"
        assert process.wait(60) == 0


@pytest.mark.exhaustive
def test_a_second_signal_ends_at_once(checkpoint):
    with serving(checkpoint, "--grace", "60") as (process, url, _):
        lines = endless(url)
        process.send_signal(signal.SIGINT)
        assert wait_for(lambda: httpx.get(url + "/ready", timeout=30).status_code == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
        del lines


def test_an_engine_that_dies_ends_its_streams_and_the_process(checkpoint):
    with serving(checkpoint, GPTOSS_FAULT="step:20=raise") as (process, url, _):
        error, done = ending(endless(url))
        assert error["error"]["code"] == "engine_died"
        assert done == "data: [DONE]"
        assert process.wait(60) == 70
        assert "InjectedFault" in process.stderr.read()


def test_generate_shows_each_token_and_ends_with_the_figures(gptoss, checkpoint):
    words = ["--model", checkpoint, "--backend", "reference", "--max-tokens", 6, "--seed", 3]
    first = gptoss("generate", "Once upon", "--debug", *words)
    assert first.returncode == 0, first.stderr
    *tokens, _, final, _, _, counts, times = first.stdout.splitlines()
    assert final == "FINAL OUTPUT"
    assert len(tokens) == 6
    for line in tokens:
        assert re.fullmatch(r" *\d+\.\d+ s +\d+ +-?\d+\.\d+  '.*'|.*\".*\"", line), line
    assert counts == "tokens: 9 of prompt, 6 of answer"
    assert re.fullmatch(r"load \S+ s, prefill \S+ s, decode \S+ s \(\S+ tokens/s\)", times)
    again = gptoss("generate", "Once upon", *words)
    assert again.stdout.splitlines()[1:3] == first.stdout.splitlines()[7:9]  # same seed, same answer


def test_generate_as_a_chat(gptoss, checkpoint):
    words = ["--model", checkpoint, "--backend", "reference", "--max-tokens", 6]
    said = gptoss("generate", "Hello", "--chat", "--effort", "none", "--temperature", 0, *words)
    assert said.returncode == 0, said.stderr
    assert "FINAL OUTPUT" in said.stdout
    assert re.search(r"tokens: 2\d\d of prompt, \d of answer", said.stdout)
