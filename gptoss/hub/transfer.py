"""One file from the hub to disk, resumed where it stopped, and checked against the hub's own checksum.

It grows as `NAME.incomplete` beside its place and takes its name only when every byte was checked, so that
what has the name is right.  Stopping at any moment, also by a power cut, costs what was not written yet.

huggingface_hub by itself starts a file anew when the program was stopped, and gpt-oss's shards are of 5 GB.
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
"""Failures in a row, without one byte between them, after which a transfer is given up."""

RETRY_SECONDS = 1.0
"""Before the first retry; each further one waits twice as long."""

TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""Answers that may be better the next time."""


class Stopped(Exception):
    """The transfer was told to stop."""


class Damaged(StartError):
    """Not the bytes that the hub promised."""


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HubFile:
    """What the hub says of one file.

    name  in the repository
    size  in bytes
    etag  the SHA-256 of a large file (kept by Git LFS), the Git object id (SHA-1) of a small one; also its
          name in the cache
    """

    name: str
    size: int
    etag: str

    def __post_init__(self) -> None:
        """Raises Damaged: name and etag become paths here, and whoever answers as the hub could name any."""
        parts = self.name.split("/")
        if not self.name.isprintable() or "\\" in self.name or {"", ".", ".."} & set(parts):
            raise Damaged(f"the hub lists a file {self.name[:100]!r}, which is no name inside of a folder")
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.etag):
            raise Damaged(f"the hub gives {self.name!r} a checksum that is none: {self.etag[:100]!r}")
        if self.size < 0:
            raise Damaged(f"the hub gives {self.name!r} a size of {self.size} bytes")

    def digest(self) -> Digest:
        """What will have `etag` as its hexdigest once it was fed the file."""
        if len(self.etag) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


def incomplete(place: Path) -> Path:
    return place.with_name(place.name + ".incomplete")


def bytes_there(place: Path) -> int:
    """How much of the file is on disk already."""
    for path in (place, incomplete(place)):
        if path.is_file():
            return path.stat().st_size
    return 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    url      where the file is
    headers  of the request, such as the token
    place    its path on disk when it is whole
    arrived  is told the number of new bytes
    stop     once set, the transfer ends with Stopped
    """

    file: HubFile
    url: str
    headers: dict[str, str]
    place: Path
    arrived: Callable[[int], None]
    stop: threading.Event

    def run(self) -> None:
        """Raises Damaged, Stopped, OSError, or what the last retry raised (httpx2, huggingface_hub)."""
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
        """Raises Damaged if the file in its place is not the hub's; it is removed then."""
        with self.place.open("rb") as file:
            if self._digest_of(file).hexdigest() == self.file.etag:
                return
        self.place.unlink()
        raise Damaged(f"{self.file.name} on disk was damaged, and was removed; try again to fetch it")

    def _digest_of(self, file: IO[bytes]) -> Digest:
        """Of what is in the file; it is read to its end."""
        digest = self.file.digest()
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            self._continue()
            digest.update(chunk)
        return digest

    def _fetch_rest(self, out: IO[bytes], digest: Digest) -> None:
        """Append what `out` lacks; it may end longer than it should if the server sends too much."""
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
        """The file's bytes from `start` on."""
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self.url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start  # a server without ranges sends all of it
            for chunk in response.iter_bytes():  # as they come: gathered to a size, the last would be lost
                yield chunk[min(skip, len(chunk)) :]
                skip -= min(skip, len(chunk))

    def _continue(self) -> None:
        if self.stop.is_set():
            raise Stopped
