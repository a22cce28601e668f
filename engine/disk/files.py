"""Pages of the KV cache as files, each written and read completely or not at all.

    DIR/secret              32 random bytes, created once: the key for names and for MACs
    DIR/lock                the process with this lock (flock) writes and deletes; the others only read
    DIR/CACHE/f0123…        a full page, by its hash; b0123… a banded page
                            header │ contents │ HMAC

CACHE identifies everything that the contents depend on: weights, layout, page size, format and tokenizer.  A
page of another cache has another folder and another HMAC.  The HMAC covers header and contents, so a file
that was truncated, changed, renamed or added by somebody else is `Damaged`, and is never used as a page.

The time of last use is the file's modification time: it survives a restart, and all servers see it.  Only the
server's user can read folders (0700) and files (0600).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.pages import Name
from model.batch import BANDED, FULL

MAGIC = b"gptoss page 1\n"
SECRET_BYTES = 32
SEAL_BYTES = 32
LETTERS = {BANDED: "b", FULL: "f"}
PATTERN = re.compile(r"[bf][0-9a-f]{32}")

BLOCK = 4096
"""Usual block size of a file system."""

FIRST_START_SECONDS = 2.0
"""Wait this long for the secret, if another server is starting at the same time and creates it."""


class Unusable(Exception):
    """The folder cannot be used.  The message is one line for the user."""


class Damaged(Exception):
    """A file does not have the contents that were written."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was found in the folder.

    path     relative to the folder
    size     bytes on disk
    used_ns  Unix time, nanoseconds
    """

    path: str
    size: int
    used_ns: int


def space(contents: int) -> int:
    """Approximate bytes on disk of a file with this many bytes of contents."""
    return -(-(_overhead() + contents) // BLOCK) * BLOCK


class PageFiles:
    """
    owner      whether this process has the lock, and so may write and delete
    names_key  key for the hashes of pages (engine/pages.py)
    """

    def __init__(self, folder: Path, cache: str):
        """
        folder  created if it is missing
        cache   identifies everything, except its tokens, that the contents of a page depend on

        Raises Unusable, or OSError.
        """
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(folder / "lock", flags, 0o600)
        self.owner = False
        try:
            self.acquire()
            secret = self._secret()
            self.names_key = _derived(secret, b"names")
            self._seal_key = _derived(secret, b"seals")
            self._id = hashlib.blake2b(cache.encode(), key=secret, digest_size=16).digest()
            self._set = self._id.hex()
            (folder / self._set).mkdir(mode=0o700, exist_ok=True)
            (folder / self._set).chmod(0o700)
        except BaseException:
            self.close()
            raise

    def acquire(self) -> bool:
        """Try to get the lock; returns whether this process has it."""
        if not self.owner:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.owner = True
        return True

    def close(self) -> None:
        """Release the lock.  Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock, self.owner = -1, False

    def scan(self) -> Iterator[Found]:
        """All pages in the folder, also of other caches.  The owner deletes incomplete files."""
        for folder in (entry for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)):
            for entry in os.scandir(folder.path):
                path = f"{folder.name}/{entry.name}"
                with suppress(FileNotFoundError):  # another server deleted it just now
                    if PATTERN.fullmatch(entry.name):
                        about = entry.stat(follow_symlinks=False)
                        size = -(-about.st_size // BLOCK) * BLOCK
                        yield Found(path, size, about.st_mtime_ns)
                    elif entry.name.startswith("new-") and self.owner:
                        os.unlink(entry.path)

    def path(self, name: Name) -> str:
        """The path of a page, relative to the folder."""
        kind, digest = name
        return f"{self._set}/{LETTERS[kind]}{digest.hex()}"

    def read(self, name: Name, into: memoryview) -> None:
        """Read a page into `into`.  Raises Damaged or OSError; then `into` has undefined contents."""
        header, seal, more = bytearray(_overhead() - SEAL_BYTES), bytearray(SEAL_BYTES), bytearray(1)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self.folder / self.path(name), flags)
        try:
            count = os.preadv(file, [header, into, seal, more], 0)
        finally:
            os.close(file)
        if count != _overhead() + len(into):
            raise Damaged(f"it has {count} bytes instead of {_overhead() + len(into)}")
        if header != self._header(name, len(into)) or not hmac.compare_digest(seal, self._seal(header, into)):
            raise Damaged("its contents are not what was written")

    def write(self, name: Name, contents: memoryview, used_ns: int) -> None:
        """Write a page.  Raises OSError; then no file is left."""
        header = self._header(name, len(contents))
        path, new = self.folder / self.path(name), self.folder / self._set / f"new-{name[1].hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(new, flags, 0o600)
        try:
            try:
                count = os.writev(file, [header, contents, self._seal(header, contents)])
            finally:
                os.close(file)
            if count != _overhead() + len(contents):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.utime(new, ns=(used_ns, used_ns))
            os.rename(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise

    def touch(self, path: str, used_ns: int) -> None:
        """path: relative to the folder.  Raises OSError."""
        os.utime(self.folder / path, ns=(used_ns, used_ns), follow_symlinks=False)

    def remove(self, path: str) -> None:
        """path: relative to the folder; it may be missing.  Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder / path)

    def _header(self, name: Name, size: int) -> bytes:
        kind, digest = name
        return MAGIC + self._id + LETTERS[kind].encode() + digest + size.to_bytes(8, "little")

    def _seal(self, header: bytes | bytearray, contents: memoryview) -> bytes:
        seal = hmac.new(self._seal_key, header, "sha256")
        seal.update(contents)
        return seal.digest()

    def _secret(self) -> bytes:
        """The folder's secret.  The owner creates it if it is missing or incomplete."""
        path, until = self.folder / "secret", time.monotonic() + FIRST_START_SECONDS
        while (secret := _read_secret(path)) is None:
            if self.acquire():
                new = self.folder / "new-secret"
                file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with open(file, "wb") as writing:
                    writing.write(secrets.token_bytes(SECRET_BYTES))
                    writing.flush()
                    os.fsync(file)
                os.rename(new, path)
            elif time.monotonic() > until:
                raise Unusable(f"{path} is missing, but another server has the lock beside it")
            else:
                time.sleep(0.01)
        return secret


def _read_secret(path: Path) -> bytes | None:
    """None if it is missing or incomplete.  Raises Unusable if others could have read or written it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(file, "rb") as reading:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise Unusable(f"{path} must belong to this user, and nobody else may read it (chmod 600)")
        secret = reading.read(SECRET_BYTES + 1)
    return secret if len(secret) == SECRET_BYTES else None


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=secret, digest_size=32).digest()


def _overhead() -> int:
    """Bytes of a file beside the contents: magic, cache, kind, hash, size, HMAC."""
    return len(MAGIC) + 16 + 1 + 16 + 8 + SEAL_BYTES
