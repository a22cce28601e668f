"""Injects faults, so that tests can show what happens when the engine fails.  For tests only.

The environment variable GPTOSS_FAULT says when and what, for instance `step:10=nan`; several are separated by
commas.  Steps count from 1, and each fault happens once:

    raise  an unexpected exception: the engine dies
    nan    in this step, or the next one that has logits, those of one sequence are NaN: it ends with an
           error, and the others are not affected
    hang   the step never returns: the watchdog declares the engine dead
    oom    the device is out of memory: the next steps are smaller
"""

from __future__ import annotations

import os
import re

KINDS = ("raise", "nan", "hang", "oom")


class InjectedFault(Exception):
    """The exception that `raise` raises."""


def parse(text: str) -> dict[int, str]:
    """Step → fault.  Raises ValueError if the text does not have the form above."""
    faults = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"step:(\d+)=(\w+)", part.strip())
        if match is None or match[2] not in KINDS:
            form = f"step:10=KIND, where KIND is one of {', '.join(KINDS)}"
            raise ValueError(f"GPTOSS_FAULT is {text!r}, but must look like {form}")
        faults[int(match[1])] = match[2]
    return faults


def from_environment() -> dict[int, str]:
    return parse(os.environ.get("GPTOSS_FAULT", ""))
