"""Standard streams that may be closed or full, or whose reader has gone (`gptoss serve | head -1`).

None of these ends the program: its output is lost, and nothing else happens.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that was closed when the program started.

    Otherwise the next file or connection gets its number, and a library's output to stderr would go there.
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
    """Print to stdout, if it can be written."""
    _try(sys.stdout, text + "\n")


def discard_unwritable_output() -> None:
    """Call this before exiting: otherwise Python exits with code 120 if it cannot flush a stream."""
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
            stream.flush()  # writes the rest to /dev/null
        except (OSError, ValueError):
            pass
