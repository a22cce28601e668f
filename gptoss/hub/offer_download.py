"""Asks the user at the terminal whether to download a hub model that is not here."""

from __future__ import annotations

import sys
from pathlib import Path

from gptoss.hub.cache import NotDownloaded, is_repo, locate
from gptoss.start import StartError


def offer_download(model: Path | None) -> None:
    """If `model` is a hub model that is not here, ask whether to download it.  Raises StartError.

    Without a terminal it does not ask, but raises NotDownloaded.
    """
    if model is None or not is_repo(model):
        return
    try:
        locate(model)
    except NotDownloaded as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        print(f"gptoss: {error}.\nDownload it now? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise StartError(f"{error.repo} was not downloaded") from None
        from gptoss.hub.download import download

        download(error.repo)
