"""Fuzzes a target of targets.py, guided by code coverage (atheris).

    python -m tests.tools.fuzz http --seconds 600

Bytes that make a target fail are written to `crash-…` beside the corpus.  Copy them to found/ as TARGET-what:
then the tests try them too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

OURS = ["server", "language", "model", "uvicorn", "tomllib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; default: a temporary one")
    asked = parser.parse_args()
    with atheris.instrument_imports(include=OURS, enable_loader_override=False):
        from tests.tools.fuzz.targets import SEEDS, TARGETS
    corpus = asked.corpus or Path(tempfile.mkdtemp(prefix="gptoss-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(SEEDS[asked.target]):
        (corpus / f"seed-{i}").write_bytes(seed)
    limits = [f"-max_total_time={asked.seconds}", "-max_len=16384", "-timeout=30", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={corpus}/", *limits], TARGETS[asked.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
