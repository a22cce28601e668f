"""Prints short tables of the results that bench/fifteen.sh wrote to a folder, the most important ones last.

python -m bench.gpu.summary build/fifteen
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHOWN = 8
"""Maximum wrong results that are shown, so that the tables remain visible."""
EIGHT_BITS = "eight_bits"
"""Part with decode steps in eight bits: weights, keys and values."""
PROFILED = 9
"""Number of kernels that are shown of a step, the longest ones, beside the time without a kernel."""


def read(folder: Path) -> dict[str, Any]:
    """The results of all parts.  Those of a model with other options have the name of their file.  A file
    that is incomplete, because its process died, is left out.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            parts = json.loads(path.read_text())
        except ValueError:
            print(f"{path.name} is not whole")
            continue
        if path.stem == EIGHT_BITS:
            parts = {EIGHT_BITS: parts.get("decode")}
        found |= parts
    return found


def table(found: dict[str, Any], part: str, columns: dict[str, int]) -> None:
    rows = found.get(part)
    if not isinstance(rows, list):
        return
    print("".join(f"{name:>{width}}" for name, width in columns.items()))
    for row in rows:
        print("".join(f"{row.get(name, '')!s:>{width}}" for name, width in columns.items()))


def main(folder: Path) -> int:
    found = read(folder)
    table(found, "kernels", {"kernel": 34, "us": 10, "share": 8})
    rows = found.get("profile")
    if isinstance(rows, list):
        longest = {streams: [row for row in rows if row.get("streams") == streams] for streams in (1, 64)}
        found["profile"] = [row for each in longest.values() for row in (*each[:PROFILED], *each[-1:])]
    table(found, "profile", {"streams": 8, "kernel": 42, "launches": 10, "us": 10})
    table(found, "engine", {"streams": 8, "sampling": 10, "in_turn_ms": 12, "overlapped_ms": 14})
    table(found, "prefill", {"tokens": 8, "ms": 10, "tokens_per_second": 18, "tflop_s": 9})
    table(found, "decode", {"streams": 8, "context": 9, "ms": 9, "tokens_per_second": 18, "share": 7})
    table(found, EIGHT_BITS, {"streams": 8, "context": 9, "ms": 9, "tokens_per_second": 18, "share": 7})
    for part in ("machine", "overlap", "copy", "load"):
        if part in found:
            print(part, json.dumps(found[part]))
    wrong = found.get("check", {}).get("wrong", [])
    for line in wrong[:SHOWN]:
        print("WRONG", line)
    if len(wrong) > SHOWN:
        print(f"WRONG {len(wrong) - SHOWN} more")
    for part, told in found.items():
        if isinstance(told, dict) and "error" in told:
            print("FAILED", part, told["error"])
    if (log := folder / "train.log").exists():
        speeds = [line for line in log.read_text(errors="replace").splitlines() if "tokens/s" in line]
        print("training:", speeds[-1] if speeds else "no speed, because it ended before its 20th step")
    status = 0
    for path in sorted(folder.glob("*.status"), key=lambda path: path.stat().st_mtime):
        told = path.read_text().strip()
        status |= not told.startswith(("ok", "skipped"))
        print(f"{path.stem:24} {told}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
