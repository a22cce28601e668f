"""The agent's process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType

from gptoss.launch.agents import Agent, Launch
from gptoss.start import StartError

FORWARDED = (signal.SIGTERM, signal.SIGHUP)
"""Signals that are forwarded to the agent.  The terminal sends keyboard signals to both processes."""


def find(agent: Agent) -> str:
    """The path of the agent's program.  Raises StartError with the command that installs it."""
    program = shutil.which(agent.name)
    if program is None:
        raise StartError(f"{agent.name} is not installed; install it with `npm install -g {agent.package}`")
    return program


def write(plan: Launch) -> None:
    """Write the agent's files, which only this user can read: they may contain a key.  Raises StartError."""
    try:
        for path, text in plan.files.items():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = path.with_name(f".{path.name}.{os.getpid()}")
            new.touch(0o600)
            new.write_text(text, encoding="utf-8")
            new.replace(path)
    except OSError as error:
        raise StartError(f"cannot write {error.filename}: {error.strerror}") from error


def run(program: str, plan: Launch, arguments: list[str]) -> int:
    """Run the agent in this terminal until it ends.  Returns its exit code, 128 + N if signal N ended it."""
    for note in plan.notes:
        print(f"gptoss: {note}", file=sys.stderr)
    process = subprocess.Popen([program, *plan.arguments, *arguments], env={**os.environ, **plan.environment})

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
