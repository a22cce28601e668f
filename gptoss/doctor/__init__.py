"""`gptoss doctor`: checks whether the server would work here, with these settings.

    findings.py    what a check found
    machine.py     checks of the program, the device, the kernels, the disk, the port, the keys
    checkpoint.py  checks of the checkpoint, its tokenizer, its memory, its first token

Each check is a function from settings to findings.  A failing check does not prevent the others.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator

from gptoss.doctor import checkpoint as model
from gptoss.doctor import machine
from gptoss.doctor.findings import Finding
from model import device as devices
from server.settings import Settings

SERVES, DOES_NOT = 0, 1


def doctor(settings: Settings, asked: argparse.Namespace) -> int:
    """Print the findings, and return an exit code: 0 only if the server would work."""
    logging.getLogger().setLevel(
        max(logging.ERROR, logging.getLogger().level)
    )  # it says itself what is wrong
    findings = []
    for finding in examine(settings, asked.full):
        findings.append(finding)
        if not asked.json:
            print(finding, flush=True)
    problems = [finding for finding in findings if finding.problem]
    if asked.json:
        print(json.dumps({"serves": not problems, "findings": [each.as_dict() for each in findings]}))
    elif problems:
        print(f"\nIt would not serve: {', '.join(finding.about for finding in problems)}.")
    else:
        print("\nIt would serve.")
    return DOES_NOT if problems else SERVES


def examine(settings: Settings, full: bool) -> Iterator[Finding]:
    """full  load also a large model, and compute a token"""
    yield machine.program()
    device = None
    try:
        device = devices.find(settings.device)
    except devices.DeviceError as error:
        yield Finding("device", str(error), "give another device with --device, or omit it", problem=True)
    if device is not None:
        yield from machine.device(device)
        yield from machine.kernels(settings, device)
    yield from model.examine(settings, device, full)
    yield machine.disk()
    yield machine.port(settings)
    yield machine.access(settings)
