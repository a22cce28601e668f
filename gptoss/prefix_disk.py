"""The prefix cache on disk (`--prefix-cache-dir`): sets it up, and identifies the pages valid for a model."""

from __future__ import annotations

import errno
import hashlib
import logging
from typing import TYPE_CHECKING

from engine.admission import Limits
from engine.disk.cache import DiskCache
from engine.disk.files import PageFiles, Unusable
from engine.disk.store import PageStore
from engine.pages import Pages
from engine.runner import Runner
from gptoss.start import StartError
from model.loading.checkpoint import Checkpoint
from model.page_copies import PageCopies
from server.settings import Settings
from server.version import VERSION

if TYPE_CHECKING:
    from model.interfaces import Model

log = logging.getLogger("gptoss.server")

DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of the disk rather than of the setting: the server starts without the cache."""


def prefix_pages_on_disk(
    settings: Settings, checkpoint: Checkpoint, model: Model, runner: Runner, limits: Limits
) -> tuple[Pages | None, DiskCache | None]:
    """The pages and the disk cache of an engine; (None, None) if the disk fails, which is logged.

    Raises StartError if the folder cannot be used.
    """
    folder = settings.prefix_cache_dir
    assert folder is not None
    if not settings.prefix_cache:
        raise StartError("--prefix-cache-dir has no effect with --prefix-cache off")
    copies = PageCopies(runner.cache, model.device)
    try:
        files = PageFiles(folder, identity(checkpoint, model, copies.sizes))
        store = PageStore(files, settings.prefix_cache_disk)
    except Unusable as error:
        raise StartError(f"--prefix-cache-dir: {error}") from error
    except OSError as error:
        reason = f"--prefix-cache-dir {folder}: {error.strerror}"
        if error.errno not in DISK_TROUBLE:
            raise StartError(reason) from error
        log.warning("%s: the prefix cache is not stored on disk", reason)
        return None, None
    pages = Pages(limits.num_pages, limits.page_size, limits.window, files.names_key)
    return pages, DiskCache(store, copies, pages)


def identity(checkpoint: Checkpoint, model: Model, sizes: tuple[int, int]) -> str:
    """Identifies everything, except the tokens, that determines the contents of a page.

    sizes  bytes of a banded and of a full page

    The weights are not read completely: files are taken as equal if their names, sizes, times and first
    megabytes are.
    """
    digest = hashlib.sha256()
    for path in sorted([*checkpoint.folder.glob("*.safetensors"), checkpoint.folder / "config.json"]):
        with path.open("rb") as file:
            about = path.stat()
            digest.update(f"{path.name}:{about.st_size}:{about.st_mtime_ns}:".encode())
            digest.update(file.read(2**20))
    digest.update(checkpoint.tokenizer_path.read_bytes())
    layout = f"pages of {model.page_size} positions, {sizes[0]} and {sizes[1]} bytes"
    return f"gptoss {VERSION}, {model.cache_format}, {layout}, {digest.hexdigest()}"
