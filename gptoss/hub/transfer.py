"""Downloads one file from the hub: resumable, and checked against the hub's checksum.

The file grows as `NAME.incomplete` and gets its name only when all bytes were checked, so a file with its
name is correct.  An interruption at any moment, also a power cut, loses only what was not yet written.

huggingface_hub itself starts a file again after an interruption, and gpt-oss's shards have 5 GB.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from gptoss.start import StartError

CHUNK_BYTES = 2**20

RETRIES = 5
"""Consecutive failures without any progress, after which a transfer fails."""

RETRY_SECONDS = 1.0
"""Wait before the first retry; it doubles with each further one."""

TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""Statuses after which a request is retried."""


class Stopped(Exception):
    """The transfer was told to stop."""


class Damaged(StartError):
    """The file does not have the hub's size or checksum."""


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HubFile:
    """The hub's description of a file.

    name  in the repository
    size  in bytes
    etag  the SHA-256 of a large file (in Git LFS), or the Git object id (SHA-1) of a small one; also its name
          in the cache
    """

    name: str
    size: int
    etag: str

    def __post_init__(self) -> None:
        """Raises Damaged for a name or etag that is unsafe as a path: the hub's answer is not trusted."""
        parts = self.name.split("/")
        if not self.name.isprintable() or "\\" in self.name or {"", ".", ".."} & set(parts):
            raise Damaged(f"the hub lists a file {self.name[:100]!r}, which is not a name inside a folder")
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.etag):
            raise Damaged(f"the hub gives {self.name!r} an invalid checksum: {self.etag[:100]!r}")
        if self.size < 0:
            raise Damaged(f"the hub gives {self.name!r} a size of {self.size} bytes")

    def digest(self) -> Digest:
        """A hash whose hexdigest is `etag` after it was updated with the whole file."""
        if len(self.etag) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


def incomplete(place: Path) -> Path:
    return place.with_name(place.name + ".incomplete")


def bytes_there(place: Path) -> int:
    """Bytes of the file that are on disk already."""
    for path in (place, incomplete(place)):
        if path.is_file():
            return path.stat().st_size
    return 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    url      URL of the file
    headers  of the request, such as the token
    place    its path on disk when it is complete
    arrived  called with the number of new bytes
    stop     once set, the transfer raises Stopped
    """

    file: HubFile
    url: str
    headers: dict[str, str]
    place: Path
    arrived: Callable[[int], None]
    stop: threading.Event

    def run(self) -> None:
        """Raises Damaged, Stopped, OSError, or the exception of the last retry (httpx2, huggingface_hub)."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        with incomplete(self.place).open("a+b") as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StartError(f"another process is downloading {self.file.name} just now") from None
            digest = self._digest_of(out)
            self._fetch_rest(out, digest)
            if out.tell() != self.file.size or digest.hexdigest() != self.file.etag:
                os.unlink(out.name)
                raise Damaged(
                    f"{self.file.name} arrived damaged (not the hub's checksum) and was removed; try again"
                )
            out.flush()
            os.fsync(out.fileno())
            os.replace(out.name, self.place)

    def check(self) -> None:
        """Check the complete file.  If it is damaged, remove it and raise Damaged."""
        with self.place.open("rb") as file:
            if self._digest_of(file).hexdigest() == self.file.etag:
                return
        self.place.unlink()
        raise Damaged(f"{self.file.name} on disk was damaged, and was removed; try again to fetch it")

    def _digest_of(self, file: IO[bytes]) -> Digest:
        """The digest of the file, which is read to its end."""
        digest = self.file.digest()
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            self._continue()
            digest.update(chunk)
        return digest

    def _fetch_rest(self, out: IO[bytes], digest: Digest) -> None:
        """Append the missing bytes to `out`; it may become too long if the server sends too much."""
        failures = 0
        while (before := out.tell()) < self.file.size:
            try:
                for chunk in self._stream(before):
                    out.write(chunk)
                    digest.update(chunk)
                    self.arrived(len(chunk))
                    self._continue()
                failure: Exception = httpx2.RemoteProtocolError("the connection was closed too early")
            except httpx2.TransportError as error:
                failure = error
            except HfHubHTTPError as error:
                if error.response.status_code not in TRY_AGAIN:
                    raise
                failure = error
            failures = 0 if out.tell() > before else failures + 1
            if out.tell() < self.file.size:
                if failures > RETRIES:
                    raise failure
                self.stop.wait(RETRY_SECONDS * 2**failures)

    def _stream(self, start: int) -> Iterator[bytes]:
        """The bytes of the file from `start` on."""
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self.url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start  # a server without ranges sends the whole file
            for (
                chunk
            ) in response.iter_bytes():  # without buffering, which would lose the last bytes if interrupted
                yield chunk[min(skip, len(chunk)) :]
                skip -= min(skip, len(chunk))

    def _continue(self) -> None:
        if self.stop.is_set():
            raise Stopped
