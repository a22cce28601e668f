"""Downloads a model from the Hugging Face hub into its cache: only the needed files, in parallel, all
checked.

Token, endpoint, cache and offline mode are huggingface_hub's own settings (HF_TOKEN, HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE, …); HTTPS_PROXY sets a proxy.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url, is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from gptoss.hub.cache import missing, snapshot
from gptoss.hub.files import NotAModel, wanted
from gptoss.hub.transfer import HubFile, Transfer, bytes_there
from gptoss.progress import Progress
from gptoss.start import StartError
from model.byte_sizes import format_bytes
from server.version import VERSION

CONNECTIONS = 4
"""Files that are downloaded or checked in parallel: one connection rarely uses the whole bandwidth."""


def download(repo: str, revision: str = "main") -> Path:
    """Download `repo`, and return its folder in the cache, complete and checked.  Raises StartError.

    Existing files are only checked.  After an interruption, the next call resumes.
    """
    with _explained(repo, revision):
        if is_offline_mode():
            return _offline(repo, revision)
        disable_progress_bars()  # huggingface_hub's own bars
        listing = Listing.ask(repo, revision)
        needed = listing.needed()
        _require_room(listing, needed)
        _fetch(listing, needed)
        return _link(listing, needed)


def _offline(repo: str, revision: str) -> Path:
    folder = snapshot(repo, revision)
    lacking = "all of it" if folder is None else missing(folder)
    if folder is None or lacking:
        raise StartError(
            f"{repo} was not downloaded completely (missing: {lacking}), and HF_HUB_OFFLINE is set"
        )
    print(f"{repo} was downloaded before; HF_HUB_OFFLINE is set, so it was not checked", file=sys.stderr)
    return folder


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one revision on the hub.

    commit  of the revision, 40 hex digits
    files   by name
    store   this repository's folder in the cache
    stop    ends all transfers when it is set
    right   names of files that this process has downloaded or checked
    """

    repo: str
    revision: str
    commit: str
    files: dict[str, HubFile]
    store: Path
    stop: threading.Event = field(default_factory=threading.Event)
    right: set[str] = field(default_factory=set)

    @classmethod
    def ask(cls, repo: str, revision: str) -> Listing:
        api = HfApi(library_name="gptoss", library_version=VERSION)
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
        files = {}
        for each in info.siblings or ():
            size, etag = (each.lfs.size, each.lfs.sha256) if each.lfs else (each.size, each.blob_id)
            if size is not None and etag is not None:
                files[each.rfilename] = HubFile(each.rfilename, size, etag)
        if info.sha is None or not files:
            raise StartError(f"{constants.ENDPOINT} does not say which files {repo} has")
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha):
            raise StartError(f"{constants.ENDPOINT} gives {repo} an invalid commit: {info.sha[:100]!r}")
        store = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
        return cls(repo, revision, info.sha, files, store)

    def needed(self) -> list[HubFile]:
        """The files that are needed for loading.  Downloads the index of the shards, if there is one."""
        names = wanted(self.files, self._read)
        if absent := [name for name in names if name not in self.files]:
            raise NotAModel(f"there is no {absent[0]}, which the index of its weights names")
        return [self.files[name] for name in names]

    def _read(self, name: str) -> bytes:
        transfer = self.transfer(self.files[name], lambda size: None)
        if not transfer.place.exists():
            transfer.run()
            self.right.add(name)
        return transfer.place.read_bytes()

    def transfer(self, file: HubFile, arrived: Callable[[int], None]) -> Transfer:
        url = hf_hub_url(self.repo, file.name, revision=self.commit)
        headers = build_hf_headers(library_name="gptoss", library_version=VERSION)
        return Transfer(file, url, headers, self.place(file), arrived, self.stop)

    def place(self, file: HubFile) -> Path:
        return self.store / "blobs" / file.etag


def _require_room(listing: Listing, needed: list[HubFile]) -> None:
    to_come = sum(file.size - bytes_there(listing.place(file)) for file in needed)
    folder = next(folder for folder in (listing.store, *listing.store.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if to_come > free:
        raise StartError(
            f"{format_bytes(to_come)} must be downloaded, but {folder} has {format_bytes(free)} free; "
            f"HF_HOME sets another folder for the cache"
        )


def _fetch(listing: Listing, needed: list[HubFile]) -> None:
    """Download the missing files, and check the others."""
    here = [file for file in needed if listing.place(file).exists() and file.name not in listing.right]
    lacking = [file for file in needed if not listing.place(file).exists()]
    if lacking:
        total = sum(file.size for file in lacking)
        done = sum(bytes_there(listing.place(file)) for file in lacking)
        print(f"{listing.repo}: {format_bytes(total)} to {listing.store}", file=sys.stderr)
        with Progress("downloading", total, done) as progress:
            _at_once([listing.transfer(file, progress.add).run for file in lacking], listing.stop)
    if here:
        with Progress("checking", sum(file.size for file in here)) as progress:
            _at_once([_checking(listing.transfer(file, progress.add)) for file in here], listing.stop)


def _checking(transfer: Transfer) -> Callable[[], None]:
    def check() -> None:
        transfer.check()
        transfer.arrived(transfer.file.size)

    return check


def _at_once(work: list[Callable[[], None]], stop: threading.Event) -> None:
    """Run all functions on several threads.  The first failure, or Ctrl-C, stops the rest."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        running = [pool.submit(each) for each in work]
        try:
            for finished in as_completed(running):
                finished.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _link(listing: Listing, needed: list[HubFile]) -> Path:
    """Create the links with the files' names, and the file with the revision's commit.  Returns the folder.

    huggingface_hub could do the same, but it would take paths from the hub's answer without checking them.
    """
    folder = listing.store / "snapshots" / listing.commit
    for file in needed:
        link = folder / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = os.path.relpath(listing.place(file), link.parent)
        _replace(link, partial(Path.symlink_to, target=blob))
    if listing.revision != listing.commit:
        branch = listing.store / "refs" / listing.revision
        branch.parent.mkdir(parents=True, exist_ok=True)
        _replace(branch, partial(Path.write_text, data=listing.commit))
    return folder


def _replace(place: Path, make: Callable[[Path], object]) -> None:
    """Replace `place` atomically by what `make` creates in a temporary folder."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".gptoss-") as beside:
        new = Path(beside) / "new"
        make(new)
        new.replace(place)


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Turns exceptions into a one-line StartError."""
    hub = constants.ENDPOINT
    try:
        yield
    except NotAModel as error:
        raise StartError(f"{repo} is not a gpt-oss that can be loaded: {error}") from error
    except HFValidationError:
        raise StartError(f"{repo!r} is not the name of a model, such as openai/gpt-oss-20b") from None
    except GatedRepoError as error:
        raise StartError(
            f"{repo} requires your consent: give it on {hub}/{repo}, then set HF_TOKEN to your token"
        ) from error
    except RepositoryNotFoundError as error:
        raise StartError(
            f"{hub} has no model {repo}, or it is private; for a private model, set HF_TOKEN to your token"
        ) from error
    except RevisionNotFoundError as error:
        raise StartError(f"{repo} has no revision {revision}") from error
    except HfHubHTTPError as error:
        raise StartError(
            f"{hub} answered {error.response.status_code} {error.response.reason_phrase}; try again later"
        ) from error
    except OfflineModeIsEnabled as error:
        raise StartError("HF_HUB_OFFLINE is set: nothing can be downloaded") from error
    except httpx2.TransportError as error:
        reason = str(error) or type(error).__name__
        raise StartError(
            f"cannot reach {hub}: {reason}; HTTPS_PROXY sets a proxy, HF_ENDPOINT another hub"
        ) from error
    except OSError as error:
        raise StartError(f"{repo} cannot be downloaded: {error.strerror or error}") from error
