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
"""For anything to appear, on a busy machine."""

PATIENCE = 3
"""Seconds after which a person presses Ctrl-C once more."""


class Terminal:
    def __init__(self, process: subprocess.Popen, leader: int):
        self.process, self._leader = process, leader
        self.seen = ""
        self._read_to = 0

    def expect(self, text: str) -> str:
        """Wait until `text` is shown after what was expected last; what was shown up to its end."""
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

        Once is nearly always enough.  But Python looks for signals before it waits in the system, for a key
        or for the server, and a signal between the two is seen when that wait ends: about one in 20,000 on a
        busy machine, with nothing but `input()` and readline.  Who is not heard presses again.
        """
        end = time.monotonic() + SECONDS
        self.type("\x03")
        while not self._shows(shown, time.monotonic() + PATIENCE):
            assert time.monotonic() < end, f"Ctrl-C was not heard:\n{self.seen[self._read_to :]}"
            self.type("\x03")
        self.expect(shown)

    def ends(self) -> int:
        """The exit code, once everything that was written has been read."""
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
        except OSError:  # Linux's way to say that nobody has the other end
            return False
        # Not text that a person sees: whether pasted text is to be marked, which readline switches.
        self.seen += re.sub(r"\x1b\[\?2004[hl]\r?", "", news.decode(errors="replace")).replace("\r\n", "\n")
        return True


@contextmanager
def terminal(*words, **environ):
    """`gptoss` with these words on a terminal."""
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
    """So that ^C is a signal to the program: the terminal has to be its own."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
