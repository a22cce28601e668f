"""A process in which a schema is compiled once for practice, because there it can be stopped.

llguidance compiles in native code that nobody can interrupt, and a few hundred bytes (twenty patterns in an
`allOf`) keep it busy beyond all patience.  So a stranger's schema meets a second process first, with a limit
of time and memory; what passes is compiled again by us.  One line of JSON each way:

    us → {"lark": …, "limits": {…}}      it → {"reason": "" or why not}

Run as a script, by its path, this file is that process; it imports nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

CPU_SECONDS = 1.0
"""The process's own, so that a busy machine refuses no more than an idle one."""
WALL_SECONDS = 30.0
"""For a question, or to start."""
MEMORY_BYTES = 1 << 30

REMEMBERED = 4096
"""Grammars whose outcome is kept.  Those in use do not wait while a stranger's is being tried."""


class Rehearsal:
    """Starts the process when first needed, and again whenever it had to be stopped.

    Safe to use from several threads, which take turns.  The process ends with this object, or with ours.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._turn = threading.Lock()
        self._known: dict[bytes, str] = {}  # digest of a grammar → its objection
        self._process: subprocess.Popen[bytes] | None = None

    def knows(self, lark: str) -> bool:
        """Whether `objection` answers at once."""
        return _digest(lark) in self._known

    def objection(self, lark: str) -> str:
        """Why this grammar cannot be compiled; "" if it can."""
        digest = _digest(lark)
        if (known := self._known.get(digest)) is not None:
            return known
        with self._turn:
            process = self._process or self._start()
            answer = _ask(process, json.dumps({"lark": lark, "limits": self._limits}))
            if answer is None:
                process.wait()
                self._process = None
                return f"it takes more than {CPU_SECONDS:g} s or {MEMORY_BYTES >> 20} MiB to compile"
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            reason = self._known[digest] = str(answer["reason"])
            return reason

    def _start(self) -> subprocess.Popen[bytes]:
        """Raises RuntimeError if the process cannot compile even nothing."""
        command = [sys.executable, "-P", __file__]  # -P: our neighbours are not to be imported by accident
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, start_new_session=True)
        weakref.finalize(self, _stop, process)
        if _ask(process, json.dumps({"lark": 'start: "a"', "limits": self._limits})) is None:
            raise RuntimeError(f"the process that tries schemas did not start: {' '.join(command)}")
        self._process = process
        return process


def _digest(lark: str) -> bytes:
    return hashlib.sha256(lark.encode()).digest()


def _ask(process: subprocess.Popen[bytes], question: str) -> Any:
    """Its answer; None if it ended, or had to be ended, without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    limit = threading.Timer(WALL_SECONDS, process.kill)
    limit.start()
    try:
        process.stdin.write(question.encode() + b"\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline() or b"null")
    except BrokenPipeError:
        return None
    finally:
        limit.cancel()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _main() -> None:
    """The other process: answers until its input ends, which it does with the server."""
    from llguidance import LLMatcher, LLParserLimits

    posix = os.name == "posix"
    if posix:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        question = json.loads(line)
        if posix:
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # then SIGPROF ends us, in native code too
        reason = LLMatcher.validate_grammar(question["lark"], limits=LLParserLimits(**question["limits"]))
        if posix:
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"reason": reason}), flush=True)


if __name__ == "__main__":
    _main()
