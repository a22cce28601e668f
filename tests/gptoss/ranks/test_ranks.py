"""`gptoss serve --tensor-parallel N`: how it starts and ends, with real processes that use gloo."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss.assembly import DEMO
from gptoss.llm import LLM
from tests import tiny_checkpoint
from tests.gptoss.test_command_line import (
    CHAT,
    assert_one_line,
    checkpoint,  # noqa: F401  (5 experts and 2 key-value heads: nothing divides both)
    ending,
    endless,
    gptoss,  # noqa: F401
    serving,
)
from tests.server.fakes import byte_tokenizer
from tests.server.test_endings import wait_for

pytestmark = pytest.mark.timeout(300)  # several processes start, on a machine that may be busy

TOGETHER = ("--tensor-parallel", "2")
PARIS = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "logprobs": True,
    "reasoning_effort": "low",
}
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "who", "strict": True, "schema": NAMED}}


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """A random gpt-oss that can be split over two and four ranks, and whose answers are long."""
    folder = tmp_path_factory.mktemp("models") / "gpt-oss-even"
    sizes = {"num_heads": 12, "num_kv_heads": 4, "num_experts": 8, "vocab_size": 300}
    config = replace(tiny_checkpoint.CONFIG, **sizes, initial_context_length=1024)
    tiny_checkpoint.write(folder, "hf", config=config)
    byte_tokenizer(folder)
    return folder


def members(process) -> dict[int, int]:
    """Rank → process of each other rank that is running."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == process.pid and b"gptoss.ranks.member" in words:
                found[len(found) + 1] = int(folder.name)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_it_answers_over_http_as_one_rank_does():
    flags = ("--backend", "cpu", "--threads", "2", "--max-context", "1024", *TOGETHER)
    with serving(DEMO, *flags) as (process, url, banner):
        assert any("tensor parallel" in line and "of rank 0" in line for line in banner), banner
        others = members(process)
        assert len(others) == 1
        answer = httpx.post(url + CHAT, json=PARIS, timeout=60).json()["choices"][0]
        assert answer["message"]["content"] == "The capital of France is Paris."
        again = httpx.post(url + CHAT, json=PARIS, timeout=60).json()
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        assert again["choices"][0]["message"] == answer["message"]
        asked = {**PARIS, "response_format": SCHEMA, "max_tokens": 60}
        named = httpx.post(url + CHAT, json=asked, timeout=60).json()["choices"][0]["message"]["content"]
        assert named.startswith("{")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert wait_for(lambda: all(gone(pid) for pid in others.values()))
    with LLM(device="cpu", backend="cpu", threads=1, max_context=1024) as llm:
        alone = llm.chat("What is the capital of France?", temperature=0, reasoning_effort="low")
    assert alone.content == answer["message"]["content"]


def assert_all_ended(process, others, since, reason):
    """Check that all processes end within ten seconds, with one line that has the reason."""
    assert process.wait(60) == 70
    assert time.monotonic() - since < 10
    assert all(gone(pid) for pid in others.values())
    lines = [line for line in process.stderr.read().splitlines() if line]
    told = [line for line in lines if reason in line]
    assert len(told) == 1, lines
    assert not any("Traceback" in line for line in lines), lines


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (signal.SIGKILL, "was ended by SIGKILL"),
        pytest.param(signal.SIGSTOP, "hangs: nothing was heard", marks=pytest.mark.exhaustive),
    ],
)
def test_a_rank_that_dies_or_hangs_ends_all_and_tells_the_streams(even, kind, reason):
    with serving(even, *TOGETHER) as (process, url, _):
        others = members(process)
        lines = endless(url)
        began = time.monotonic()
        os.kill(others[1], kind)
        error, done = ending(lines)
        assert error["error"]["code"] == "engine_died"
        assert done == "data: [DONE]"
        assert_all_ended(process, others, began, f"rank 1 (process {others[1]}) {reason}")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "reason"),
    [(signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGSTOP, "hangs: nothing was heard")],
)
def test_also_where_nobody_asks_anything_and_one_of_four(even, kind, reason):
    with serving(even, "--tensor-parallel", "4") as (process, _, _):
        others = members(process)
        assert len(others) == 3
        lost = others[2]
        began = time.monotonic()
        os.kill(lost, kind)
        assert_all_ended(process, others, began, f"(process {lost}) {reason}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_no_rank_outlives_rank_0(even, kind):
    with serving(even, *TOGETHER) as (process, url, _):
        others = members(process)
        lines = endless(url)
        began = time.monotonic()
        os.kill(process.pid, kind)
        assert process.wait(60) == -signal.SIGKILL
        assert wait_for(lambda: all(gone(pid) for pid in others.values()))
        assert time.monotonic() - began < 10
        with pytest.raises(httpx.HTTPError):
            list(lines)


def test_what_cannot_be_split_is_one_line_at_the_start(gptoss, checkpoint, even):  # noqa: F811
    told = assert_one_line(gptoss("serve", "--model", checkpoint, *TOGETHER))
    assert "--tensor-parallel 2: each rank has whole key-value heads and whole experts" in told
    assert "this model has 2 and 5; it cannot be split" in told
    told = assert_one_line(gptoss("serve", "--model", even, "--tensor-parallel", "3"))
    assert "has 4 and 8; possible are 2, 4" in told
    told = assert_one_line(gptoss("serve", "--model", even, *TOGETHER, "--prefix-cache-dir", "cache"))
    assert "--prefix-cache-dir does not work with --tensor-parallel" in told


def test_a_rank_that_cannot_load_its_part_says_why(gptoss, even, tmp_path):  # noqa: F811
    """An invalid scale, of an expert that only rank 1 has."""
    for file in even.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for file in tmp_path.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if name.endswith("layers.0.mlp.experts.down_proj_scales"):
                tensor[-1] = 255
        save_file(tensors, file)
    words = ("--model", tmp_path, "--backend", "cpu", "--device", "cpu", "--port", "0", *TOGETHER)
    told = assert_one_line(gptoss("serve", *words))
    assert "rank 1: block.0.mlp.mlp2_weight.scales holds 255" in told


@pytest.mark.exhaustive
def test_one_process_may_start_several_one_after_the_other(even):
    """As in a notebook; and no process is left."""
    answers = []
    for size in (2, 1, 2):
        with LLM(even, device="cpu", backend="reference", max_context=64, tensor_parallel=size) as llm:
            answers.append(llm.generate(["Once upon"], max_tokens=5, temperature=0)[0].text)
    assert answers[0] == answers[2]
    assert not torch.distributed.is_initialized()
    assert not subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "ranks.member"], capture_output=True
    ).stdout
