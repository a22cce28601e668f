"""What is in the longest loop of a kernel: its machine code, read by the `nvdisasm` of the package triton."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

LABEL = re.compile(r"^(\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)[^;]*;")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")
"""Of a branch.  For Blackwell some versions say behind it how long to wait."""

TENSOR = ("HGMMA", "HMMA", "UTCHMMA")
"""Products of matrices: of warp groups, of a warp, of the large Blackwells."""


def longest_loop(binary: Path) -> Counter[str]:
    """How often each instruction is in the longest loop, by its name; empty if there is none."""
    text = subprocess.check_output([TOOLS / "nvdisasm", "-c", binary], text=True, stderr=subprocess.DEVNULL)
    return loop_of(text)


def loop_of(text: str) -> Counter[str]:
    """A loop is what lies between a label and a branch back to it."""
    labels: dict[str, int] = {}
    names: list[str] = []
    longest = range(0)
    for line in text.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(names)
        elif found := INSTRUCTION.match(line):
            names.append(found[1])
            target = TARGET.search(line)
            if found[1] == "BRA" and target and target[1] in labels:
                loop = range(labels[target[1]], len(names))
                longest = max(longest, loop, key=len)
    return Counter(names[at] for at in longest)
