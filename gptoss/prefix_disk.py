"""Where prefix pages are kept on disk, and which of them are this model's: `--prefix-cache-dir`."""

from __future__ import annotations

import errno
import hashlib
import logging
from typing import TYPE_CHECKING

from engine.admission import Limits
from engine.disk_cache import DiskCache
from engine.page_files import PageFiles, Unusable
from engine.page_store import PageStore
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
"""Of the disk, not of the setting: no reason not to start."""


def prefix_pages_on_disk(
    settings: Settings, checkpoint: Checkpoint, model: Model, runner: Runner, limits: Limits
) -> tuple[Pages | None, DiskCache | None]:
    """The pages of an engine whose prefixes outlive it; nothing if the disk is in trouble, which is logged.

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
        log.warning("%s: prefixes of prompts are not kept", reason)
        return None, None
    pages = Pages(limits.num_pages, limits.page_size, limits.window, files.names_key)
    return pages, DiskCache(store, copies, pages)


def identity(checkpoint: Checkpoint, model: Model, sizes: tuple[int, int]) -> str:
    """All that a page's contents depend on, but for its tokens.

    sizes  bytes of a banded, and of a full page

    Gigabytes of weights are not read for it: files count as the same if their names, sizes, times and first
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
