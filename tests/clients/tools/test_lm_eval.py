"""lm-eval's `local-completions` computes its scores from the server's log-probabilities.

A multiple choice is decided by the log-probabilities of an echoed prompt.  So an offset of one token, or
other tokens of the prompt, would change the scores, which are computed here a second time.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.packages import require

require("lm_eval")
transformers = require("transformers")

TASKS = Path(__file__).parent / "tasks"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@pytest.fixture(scope="module")
def samples(server, tokenizer_folder, tmp_path_factory):
    """Runs both tasks; task → what lm-eval logged of each question, the log-likelihoods among it."""
    folder = tmp_path_factory.mktemp("lm_eval")
    for file in TASKS.iterdir():
        (folder / file.name).write_text(file.read_text().replace("__HERE__", str(folder)))
    where = f"model={server.model},base_url={server.base_url}/completions"
    how = f"tokenizer_backend=huggingface,tokenizer={tokenizer_folder},num_concurrent=2,max_retries=1"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", f"{where},{how}", "--tasks", "greetings,copying"]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out"), "--log_samples"]
    environment = {**os.environ, **OFFLINE, "HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "x"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    logged = {}
    for task in ("greetings", "copying"):
        (file,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
        logged[task] = [json.loads(line) for line in file.read_text().splitlines()]
    return logged


def test_log_likelihoods_are_the_sums_of_the_servers_log_probabilities(server, samples, tokenizer_folder):
    openai = require("openai")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    with openai.OpenAI(base_url=server.base_url, api_key="x", timeout=60) as client:
        for sample in samples["greetings"]:
            for answer, ((told, _),) in zip(sample["doc"]["answers"], sample["resps"], strict=True):
                question = sample["doc"]["question"]
                ids = tokenizer.encode(question + answer, add_special_tokens=False)
                scored = client.completions.create(
                    model=server.model, prompt=ids, max_tokens=0, echo=True, logprobs=1, temperature=0
                )
                begins = len(tokenizer.encode(question, add_special_tokens=False))
                expected = sum(scored.choices[0].logprobs.token_logprobs[begins:])
                assert math.isclose(float(told), expected, abs_tol=1e-3)


def test_generated_text_is_scored_too(samples):
    assert len(samples["copying"]) == 3
    assert all(isinstance(sample["filtered_resps"][0], str) for sample in samples["copying"])
