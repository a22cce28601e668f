"""Standard streams that may be closed, full, or have a reader that has left (`gptoss serve | head -1`).

None of that is a reason for a server to end: what it has to say there is lost, and nothing else.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


def make_sure_they_are_open() -> None:
    """Give each that was closed at the start to /dev/null.

    Otherwise the next file or connection gets its number, and what a library writes to stderr goes in there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def say(text: str) -> None:
    """Print to stdout, if anybody takes it."""
    _try(sys.stdout, text + "\n")


def give_up_what_cannot_be_written() -> None:
    """Before the end: Python would make the failure to write the last words the program's exit code (120)."""
    for stream in (sys.stdout, sys.stderr):
        _try(stream, "")


def _try(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed at the start
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()  # what is left of it goes there
        except (OSError, ValueError):
            pass
