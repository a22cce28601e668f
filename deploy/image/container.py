"""A minimal container for testing an image without a Docker engine: the image's root folder, and its server
running in it.

The server has its own namespaces for processes and mounts, the image's user, environment, working folder and
entry point, and a tmpfs for /tmp.  It shares the machine's network, so it must listen on a free port of the
loopback address.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 300
ANSWER_SECONDS = 120
OURS = "gptoss and other packages"
PARTS = {
    "torch": "opt/gptoss/lib/python*/site-packages/torch",
    "NVIDIA's libraries": "opt/gptoss/lib/python*/site-packages/nvidia",
    "Triton": "opt/gptoss/lib/python*/site-packages/triton",
    OURS: "opt/gptoss",
}
"""Parts of the image whose sizes are printed → their paths; the last path contains the others."""

ENTER = """
mount --make-rprivate /
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" && exec "$@"
"""


class Failure(Exception):
    """The image failed a check."""


class Container:
    """root       the image's file system
    described  its configuration as Docker writes it: User, Env, Entrypoint, Cmd, Healthcheck, StopSignal
    """

    def __init__(self, root: Path, described: dict[str, Any]):
        self._root, self._described = root, described
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        ours = {"GPTOSS_HOST": "127.0.0.1", "GPTOSS_PORT": str(self.port), "HOME": described["WorkingDir"]}
        self._environment = dict(each.split("=", 1) for each in described["Env"]) | ours

    def command(self, words: Iterable[str]) -> list[str]:
        """`words` as the image would run them."""
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        inside = [
            "env",
            "--ignore-environment",
            f"--chdir={self._described['WorkingDir']}",
            *variables,
            *words,
        ]
        return ["chroot", f"--userspec={self._described['User']}", str(self._root), *inside]

    def find(self, names: Iterable[str]) -> list[str]:
        """Which of these programs the image has."""
        folders = [self._root / folder.lstrip("/") for folder in self._environment["PATH"].split(":")]
        return [name for name in names if any((folder / name).exists() for folder in folders)]

    def healthy(self) -> bool:
        """The result of the image's own HEALTHCHECK."""
        kind, *words = self._described["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self.command(words), capture_output=True).returncode == 0

    def doctor(self) -> str:
        """Run `gptoss doctor` in the image, and return its last line.  Raises Failure, with all output, if it
        fails.
        """
        done = subprocess.run(self._start(["doctor"]), capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"gptoss doctor ends with exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.splitlines()[-1]

    def _start(self, words: Iterable[str]) -> list[str]:
        """The entry point with these words, as process 1 of its namespace."""
        inside = self.command([*self._described["Entrypoint"], *words])
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*namespaces, "sh", "-euc", ENTER, str(self._root), *inside]

    @contextmanager
    def serving(self) -> Iterator[Server]:
        """Run the entry point, and wait until it is healthy.  Raises Failure if it ends before, or takes too
        long.
        """
        began = time.monotonic()
        process = subprocess.Popen(self._start(self._described["Cmd"]))
        try:
            while not self.healthy():
                if process.poll() is not None:
                    raise Failure(f"the server ended with exit code {process.returncode}")
                if time.monotonic() > began + START_SECONDS:
                    raise Failure(f"the server was not healthy after {START_SECONDS} s")
                time.sleep(0.5)
            stop = signal.Signals[self._described.get("StopSignal") or "SIGTERM"]
            yield Server(process, self.port, stop, time.monotonic() - began)
        finally:
            process.kill()
            process.wait()

    def print_size(self) -> None:
        """Print the uncompressed size of the image and of its parts."""
        parts = {name: sum(map(_bytes, self._root.glob(pattern))) for name, pattern in PARTS.items()}
        whole = _bytes(self._root)
        parts["Debian and Python"] = whole - parts[OURS]
        parts[OURS] -= sum(parts[name] for name in PARTS if name != OURS)
        for name, size in {**parts, "in all": whole}.items():
            if size:
                print(f"{size / 1e6:8.0f} MB  {name}")


def _bytes(path: Path) -> int:
    counted = subprocess.run(["du", "-sxB1", str(path)], capture_output=True, text=True, check=True)
    return int(counted.stdout.split()[0])


class Server:
    """A running server of a container.

    start_seconds  from the start of the process to the first healthy answer
    """

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, stop: signal.Signals, start_seconds: float
    ):
        self._process, self._port, self._stop = process, port, stop
        self.start_seconds = start_seconds
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._first = int(children[0])  # process 1 in the container

    @property
    def user(self) -> str:
        status = Path(f"/proc/{self._first}/status").read_text()
        user = status.partition("Uid:")[2].split()[0]
        if user == "0":
            raise Failure("the server runs as root")
        return f"user {user}"

    def ask(self, question: str) -> str:
        answer = json.loads(self._post(question, stream=False).read())
        content: str = answer["choices"][0]["message"]["content"]
        if not content:
            raise Failure(f"no answer: {answer}")
        return content

    def stop_during_an_answer(self) -> str:
        """Request a stream, and stop the server at its first event.  Returns a description of what happened.

        Raises Failure if the stream is cut off, or the exit code is not 0.
        """
        lines = iter(self._post("What is the capital of France?", stream=True).readline, b"")
        next(lines)
        self._signal_at = time.monotonic()
        subprocess.run(["kill", f"-{self._stop.value}", str(self._first)], check=True)
        events = [line for line in lines if line.startswith(b"data:")]
        if not events or events[-1].strip() != b"data: [DONE]":
            raise Failure("the running answer was cut off at SIGTERM")
        code = self._process.wait(timeout=ANSWER_SECONDS)
        if code != 0:
            raise Failure(f"exit code {code} after SIGTERM")
        return f"{len(events)} more events, then stopped within {time.monotonic() - self._signal_at:.1f} s"

    def _post(self, question: str, stream: bool) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "stream": stream}
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise Failure(f"{answer.status}: {answer.read().decode(errors='replace')}")
        return answer
