"""A program on a pseudo-terminal: what a user would see, and what the user types."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
SECONDS = 90
"""Time limit for a text to appear, long enough for a busy machine."""

PATIENCE = 3
"""Seconds until Ctrl-C is pressed again."""


class Terminal:
    def __init__(self, process: subprocess.Popen, leader: int):
        self.process, self._leader = process, leader
        self.seen = ""
        self._read_to = 0

    def expect(self, text: str) -> str:
        """Wait until `text` appears after the previously expected one.  Returns all output up to its end."""
        assert self._shows(text, time.monotonic() + SECONDS), (
            f"{text!r} did not appear:\n{self.seen[self._read_to :]}"
        )
        at = self.seen.find(text, self._read_to)
        shown = self.seen[self._read_to : at + len(text)]
        self._read_to = at + len(text)
        return shown

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def interrupt(self, shown: str) -> None:
        """Press Ctrl-C until `shown` appears.

        Once is nearly always enough.  But Python checks for signals before it waits in the system for a key
        or for the server.  A signal between the check and the wait is noticed only when the wait ends: about
        one in 20,000 on a busy machine, even with only `input()` and readline.  Then Ctrl-C is pressed again.
        """
        end = time.monotonic() + SECONDS
        self.type("\x03")
        while not self._shows(shown, time.monotonic() + PATIENCE):
            assert time.monotonic() < end, f"Ctrl-C was not heard:\n{self.seen[self._read_to :]}"
            self.type("\x03")
        self.expect(shown)

    def ends(self) -> int:
        """Read the remaining output, and return the exit code."""
        end = time.monotonic() + SECONDS
        while self._read():
            assert time.monotonic() < end, f"the program goes on:\n{self.seen}"
        return self.process.wait(SECONDS)

    def _shows(self, text: str, until: float) -> bool:
        """Whether `text` appears before that time."""
        while (missing := self.seen.find(text, self._read_to) < 0) and time.monotonic() < until:
            assert self._read(), f"the program ended without {text!r}:\n{self.seen[self._read_to :]}"
        return not missing

    def _read(self) -> bool:
        ready, _, _ = select.select([self._leader], [], [], 1)
        try:
            news = os.read(self._leader, 65536) if ready else b""
        except OSError:  # on Linux: the other end was closed
            return False
        # Not visible text: readline switches the marking of pasted text on and off.
        self.seen += re.sub(r"\x1b\[\?2004[hl]\r?", "", news.decode(errors="replace")).replace("\r\n", "\n")
        return True


@contextmanager
def terminal(*words, **environ):
    """`gptoss` with these arguments, on a terminal."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GPTOSS_", "NO_COLOR"))}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gptoss", *map(str, words)],
        cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        preexec_fn=_take_the_terminal, env={**ours, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environ},
    )  # fmt: skip
    os.close(follower)
    try:
        yield Terminal(process, leader)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _take_the_terminal() -> None:
    """Make this the program's controlling terminal, so that ^C becomes a signal to it."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
