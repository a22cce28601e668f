"""A process in which a client's schema is compiled first, because that process can be killed.

llguidance compiles in native code that cannot be interrupted, and a few hundred bytes (twenty patterns in an
`allOf`) keep it busy for minutes.  So a new schema is first compiled in a second process, with limits on time
and memory.  Only if that succeeds is it compiled in this one.  One line of JSON in each direction:

    this process → {"lark": …, "limits": {…}}      sandbox → {"reason": "" or why it cannot be compiled}

The sandbox runs this file as a script, by its path; so this file imports nothing of ours.
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
"""CPU time of the sandbox for one grammar: independent of how busy the machine is."""
WALL_SECONDS = 30.0
"""Elapsed time for one grammar, or for starting the process."""
MEMORY_BYTES = 1 << 30

MAX_KNOWN = 4096
"""Grammars whose outcome is kept.  A known grammar does not wait while a new one is being checked."""


class CompilerSandbox:
    """Starts the process when it is first needed, and again whenever it had to be killed.

    Safe to use from several threads; it checks one grammar at a time.  The process ends with this object, or
    with the server's process.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._turn = threading.Lock()
        self._known: dict[bytes, str] = {}  # digest of a grammar → why not
        self._process: subprocess.Popen[bytes] | None = None

    def has_checked(self, lark: str) -> bool:
        """Whether `why_not` returns at once."""
        return _digest(lark) in self._known

    def why_not(self, lark: str) -> str:
        """The reason why this grammar cannot be compiled; "" if it can."""
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
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            reason = self._known[digest] = str(answer["reason"])
            return reason

    def _start(self) -> subprocess.Popen[bytes]:
        """Raises RuntimeError if the process does not start, or cannot compile a trivial grammar."""
        command = [sys.executable, "-P", __file__]  # -P: never import a file of this folder by accident
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, start_new_session=True)
        weakref.finalize(self, _stop, process)
        if _ask(process, json.dumps({"lark": 'start: "a"', "limits": self._limits})) is None:
            raise RuntimeError(f"the process that compiles schemas did not start: {' '.join(command)}")
        self._process = process
        return process


def _digest(lark: str) -> bytes:
    return hashlib.sha256(lark.encode()).digest()


def _ask(process: subprocess.Popen[bytes], question: str) -> Any:
    """The answer; None if the process ended, or was killed, before it answered."""
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
    """The sandbox process: answers until its input ends, which happens when the server ends."""
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
