"""bench/fifteen.sh reports every part, however a part ends.

The parts are replaced by a script instead of Python, which writes results, fails, hangs or crashes.  The
parts themselves are tested by `bash bench/fifteen.sh --rehearse`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = f"""#!{sys.executable} -S
import json, os, signal, sys, time

asked = sys.argv[1:]
part = {{
    "-c": lambda: "versions",
    "bench.gpu.warm": lambda: "warm",
    "pytest": lambda: os.path.basename(asked[-1]).removesuffix(".py"),
    "bench.gpu": lambda: asked[asked.index("--only") + 1].split(",")[-1],
    "bench.gpu.summary": lambda: "summary",
    "demo.train": lambda: "train",
}}[asked[1] if asked[0] == "-m" else "-c"]()
if part == "summary":
    os.execv(os.environ["REAL_PYTHON"], [os.environ["REAL_PYTHON"], *asked])
fault = json.loads(os.environ["FAULTS"]).get(part)
print("about to", part, flush=True)
results = {{part: [{{"streams": 1, "context": 9, "ms": 2.5, "tokens": 7, "kernel": "some"}}]}}
if part == "check":
    wrong = ["gate and up of few of 3 tokens: 0.5"] if fault == "tolerance" else []
    results = {{"check": {{"passed": not wrong, "wrong": wrong}}}}
if fault == "hang":
    time.sleep(1000)
elif fault == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
elif fault == "exception":
    raise RuntimeError("CUDA error: an illegal memory access")
elif fault == "half a file":
    open(asked[asked.index("--results") + 1], "w").write('{{"machine": {{')
    raise SystemExit(1)
elif fault == "no test":
    raise SystemExit(5)
elif part == "train":
    print("step 40 loss 0.1 rate 1.000 600000 tokens/s")
if "--results" in asked:
    open(asked[asked.index("--results") + 1], "w").write(json.dumps(results))
raise SystemExit(fault == "tolerance")
"""

PARTS = {"versions", "card", "warm", "check", "decode", "prefill", "kernels", "profile", "engine"}
PARTS |= {path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py")}

LATER = {"load", "eight_bits", "train"}
"""Parts of a second run."""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def fifteen(tmp_path, out):
    """Runs it with faults in some parts.  Returns exit code, output, and the status of each part."""
    for name, text in (("python", STAND_IN), ("nvidia-smi", "#!/bin/sh\nexit $SMI_FAILS\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(*options, smi_fails=0, limits=None, **faults):
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "REAL_PYTHON": sys.executable,
            "FAULTS": json.dumps({name: fault.replace("_", " ") for name, fault in faults.items()}),
            "SMI_FAILS": str(smi_fails),
            **{f"LIMIT_{part}": str(seconds) for part, seconds in (limits or {}).items()},
        }
        command = ["bash", str(ROOT / "bench" / "fifteen.sh"), *options, str(out)]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=100)
        told = {path.stem: path.read_text().strip() for path in out.glob("*.status")}
        assert told.keys() == PARTS | (LATER if "--second" in options else set()), done.stdout + done.stderr
        return done.returncode, done.stdout, told

    return run


def test_without_a_fault_all_parts_are_well_and_the_tables_come_last(fifteen):
    code, printed, told = fifteen()
    assert code == 0
    assert all(status.startswith("ok, ") for status in told.values())
    tables = printed.split("\n\n")[1]
    assert "streams  context" in tables
    assert printed.splitlines()[-1].endswith("/out")


FAULTS = {
    "check": ("tolerance", "FAILED, exit code 1"),
    "decode": ("exception", "FAILED, exit code 1: RuntimeError: CUDA error: an illegal memory access"),
    "prefill": ("hang", "TIMED OUT after 1 s"),
    "kernels": ("crash", "FAILED, exit code 139: Fatal Python error: Segmentation fault"),
    "engine": ("half_a_file", "FAILED, exit code 1"),
    "test_options_gpu": ("hang", "TIMED OUT after 1 s"),
    "test_sampling_gpu": ("no_test", "skipped: no test ran"),
    "test_start_gpu": ("crash", "FAILED, exit code 139"),
}


def test_faults_of_every_kind_are_told_and_all_others_report(fifteen, out):
    limits = {part: 1 for part, (fault, _) in FAULTS.items() if fault == "hang"}
    code, printed, told = fifteen(limits=limits, **{part: fault for part, (fault, _) in FAULTS.items()})
    assert code == 1
    for part, status in told.items():
        assert status.startswith(FAULTS[part][1] if part in FAULTS else "ok, "), (part, status)
        assert f"{part:24} {status}" in printed
    assert "WRONG gate and up of few of 3 tokens: 0.5" in printed
    assert "engine.json is not whole" in printed
    hung = (out / "prefill.log").read_text()
    assert "about to prefill" in hung
    assert "in <module>" in hung, "where it was"


@pytest.mark.parametrize("part", ["versions", "warm", "card"])
def test_a_machine_that_is_not_as_expected_is_measured_all_the_same(fifteen, part):
    code, _, told = fifteen(smi_fails=9) if part == "card" else fifteen(**{part: "exception"})
    assert code == 1
    assert {name for name, status in told.items() if status.startswith("FAILED")} == {part}


@pytest.mark.exhaustive
def test_when_the_time_is_over_the_tables_come_all_the_same(fifteen):
    code, printed, told = fifteen(limits={"total": 4}, check="hang")
    assert code == 1
    assert told["check"].startswith(("TIMED OUT", "NOT RUN"))
    assert told["engine"] == "NOT RUN: no time was left"
    assert f"{'engine':24} NOT RUN: no time was left" in printed


@pytest.mark.exhaustive
def test_what_an_earlier_run_has_left_is_not_told_again(fifteen):
    fifteen()
    _, printed, told = fifteen(limits={"decode": 1}, decode="hang")
    assert told["decode"].startswith("TIMED OUT")
    assert "context" not in printed  # the table of the run before


def test_a_second_run_does_what_failed_again_and_more(fifteen, out):
    fifteen(limits={"prefill": 1}, decode="exception", prefill="hang", test_start_gpu="crash")
    kept = (out / "kernels.log").stat().st_mtime_ns
    code, printed, told = fifteen("--second", kernels="crash")
    assert code == 0
    assert all(status.startswith("ok, ") for status in told.values())
    assert (out / "kernels.log").stat().st_mtime_ns == kept
    done = {line.split(":")[0] for line in printed.split("\n\n")[0].splitlines()}
    assert done == {"decode", "prefill", "test_start_gpu", *LATER}
    assert "training: step 40 loss 0.1 rate 1.000 600000 tokens/s" in printed
    assert printed.count("streams  context       ms") == 2  # of decodes, and of those in eight bits
