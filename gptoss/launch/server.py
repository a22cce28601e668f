"""The server that an agent uses: a running one, or one that is started for the agent and stopped after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from gptoss.launch.agents import Model
from gptoss.start import StartError

ASK_SECONDS = 10.0
END_SECONDS = 60.0
LAST_LINES = 5


@dataclass(slots=True)
class Server:
    """url has no slash at its end; key is None if the server needs none."""

    url: str
    key: str | None
    model: Model
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server if it was started here."""
        if self.process is not None:
            _end(self.process)


def running(url: str, key: str | None) -> Server:
    """A running server.  Raises StartError if it cannot be reached, or has no model."""
    url = url.rstrip("/").removesuffix("/v1")
    return Server(url, key, _model(url, key))


def started(flags: list[str], key: str | None) -> Server:
    """Start `gptoss serve` on a free port, and wait until it is ready.  Raises StartError if it fails."""
    command = [sys.executable, "-m", "gptoss", "serve", *flags, "--port", "0"]
    log = tempfile.TemporaryFile()  # noqa: SIM115  read below; deleted with this process
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    try:
        url = _url(process, log)
        return Server(url, key, _model(url, key), process)
    except BaseException:
        _end(process)
        raise


def _url(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """The URL of the server, once it listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"listening on "):
            return line.removeprefix(b"listening on ").decode().strip()
        sys.stderr.write(line.decode(errors="replace"))  # the summary of model and memory
        sys.stderr.flush()
    log.seek(0)
    words = log.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
    raise StartError("the server did not start: " + " ".join(words))


def _model(url: str, key: str | None) -> Model:
    """The model of a server.  Raises StartError."""
    import httpx2

    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx2.get(f"{url}/v1/models", headers=headers, timeout=ASK_SECONDS)
        answer.raise_for_status()
        models: list[dict[str, Any]] = answer.json()["data"]
        return Model(str(models[0]["id"]), int(models[0].get("max_model_len") or 131_072))
    except httpx2.HTTPStatusError as error:
        hint = "; give the API key with --key" if error.response.status_code == 401 else ""
        raise StartError(f"{url} returned status {error.response.status_code}{hint}") from error
    except httpx2.HTTPError as error:
        raise StartError(f"there is no server at {url}: {error}") from error
    except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise StartError(f"{url} does not say which model it has") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the server: SIGTERM, and SIGKILL if it does not stop within END_SECONDS."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + END_SECONDS
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
