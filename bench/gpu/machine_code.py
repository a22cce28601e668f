"""Counts the machine instructions in the longest loop of a kernel, with `nvdisasm` of the package triton."""

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
"""The target of a branch.  For Blackwell, some versions of nvdisasm write a wait time after it."""

TENSOR = ("HGMMA", "HMMA", "UTCHMMA")
"""Instructions for products of matrices: of warp groups, of a warp, of the large Blackwells."""


def longest_loop(binary: Path) -> Counter[str]:
    """Name of each instruction in the longest loop → how often it is there; empty if there is no loop."""
    text = subprocess.check_output([TOOLS / "nvdisasm", "-c", binary], text=True, stderr=subprocess.DEVNULL)
    return loop_of(text)


def loop_of(text: str) -> Counter[str]:
    """The same for disassembled text.  A loop lies between a label and a branch back to it."""
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
