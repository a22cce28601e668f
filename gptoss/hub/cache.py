"""Finds a model: in the given folder, or in the hub's cache."""

from __future__ import annotations

from pathlib import Path

from gptoss.hub.files import REPO, NotAModel, wanted
from gptoss.start import StartError


class NotDownloaded(StartError):
    """A model of the hub that was not downloaded, or not completely.

    repo  its name
    """

    def __init__(self, repo: str, state: str):
        super().__init__(f"{repo} {state}; `gptoss download {repo}` fetches it from the Hugging Face hub")
        self.repo = repo


def is_repo(model: Path) -> bool:
    """Whether `model` is a name on the hub: an existing folder is not, whatever its name."""
    return REPO.fullmatch(str(model)) is not None and not model.exists()


def locate(model: Path) -> Path:
    """The folder of `model`, which is a folder or a name on the hub.  Raises NotDownloaded."""
    if not is_repo(model):
        return model
    repo = str(model)
    folder = snapshot(repo)
    if folder is None:
        raise NotDownloaded(repo, "is not a folder, and was not downloaded")
    if lacking := missing(folder):
        raise NotDownloaded(repo, f"was not downloaded completely ({folder} lacks {lacking})")
    return folder


def snapshot(repo: str, revision: str = "main") -> Path | None:
    """The folder of a cached revision, which may be incomplete."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", "original/config.json"):
        found = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parents[name.count("/")]
    return None


def repo_of(folder: Path) -> str | None:
    """The hub's name for a folder of its cache, `models--openai--gpt-oss-20b/snapshots/COMMIT`."""
    *_, store, snapshots, _commit = ("", "", "", *folder.parts)
    if snapshots != "snapshots" or not store.startswith("models--"):
        return None
    return store.removeprefix("models--").replace("--", "/", 1)


def missing(folder: Path) -> str | None:
    """What is missing in a snapshot, if anything is."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        needed = wanted(names, lambda name: (folder / name).read_bytes())
    except NotAModel as error:
        return str(error).removeprefix("there is no ").removeprefix("there are no ")
    return next((name for name in needed if name not in names), None)
