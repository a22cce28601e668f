"""OpenAI's own evals for gpt-oss: its command, and multiple-choice questions from many threads at once.

Both use the Responses API, with the largest possible max_output_tokens.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.clients.packages import require

require("gpt_oss.evals")
pandas = require("pandas")

from gpt_oss.evals import gpqa_eval, responses_sampler  # noqa: E402

QUESTIONS = 24


def test_the_command_runs_to_its_table_of_scores(server):
    arguments = ["--model", server.model, "--base-url", server.base_url, "--eval", "basic"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gpt_oss.evals",
            *arguments,
            "--reasoning-effort",
            "low,high",
            "--n-threads",
            "2",
        ],
        env={**os.environ, "OPENAI_API_KEY": "x"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in re.findall(r"^Writing .* to (/tmp/basic_\S+)$", done.stdout, re.MULTILINE):
        Path(path).unlink()  # where they go is not an option
    assert "Bad Request" not in done.stdout
    scores = ast.literal_eval(done.stdout.splitlines()[-1])
    assert [score["metric"] for score in scores] == [1.0, 1.0], done.stdout  # 1: there was an answer


def test_many_questions_of_four_choices_at_once(server, monkeypatch):
    rows = [
        {"Question": f"What is {i} + 1?", "Correct Answer": str(i + 1)}
        | {f"Incorrect Answer {n}": str(i + 1 + n) for n in (1, 2, 3)}
        for i in range(QUESTIONS)
    ]
    monkeypatch.setattr(pandas, "read_csv", lambda url: pandas.DataFrame(rows))  # it would be downloaded
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    sampler = responses_sampler.ResponsesSampler(
        server.model, reasoning_model=True, reasoning_effort="low", base_url=server.base_url, max_tokens=200
    )
    result = gpqa_eval.GPQAEval(n_repeats=1, n_threads=QUESTIONS)(sampler)
    answers = [convo[-1]["content"] for convo in result.convos]
    assert len(answers) == QUESTIONS
    assert sum(bool(answer) for answer in answers) > QUESTIONS / 2  # a small model may think to its limit
    assert 0 <= result.score <= 1
