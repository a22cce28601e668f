"""guidellm measures the server, with prompts that it generates."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.packages import require

require("guidellm")

REQUESTS = 4


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
def test_every_request_succeeds_and_is_measured(server, tokenizer_folder, tmp_path, route):
    report = tmp_path / "report.json"
    command = [str(Path(sys.executable).parent / "guidellm"), "run"]
    command += [
        "--backend",
        f"kind=openai_http,target={server.url},model={server.model},request_format={route}",
    ]
    command += ["--profile", "kind=concurrent,streams=2"]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--data", "kind=synthetic_text,prompt_tokens=24,output_tokens=8"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer_folder}"]
    command += ["--output", f"kind=json,path={report}", "--disable-progress"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    # Each worker is a process that imports everything anew; left alone it starts ten.
    environment = {**os.environ, **offline, "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (REQUESTS, 0), done.stdout
