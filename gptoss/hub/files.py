"""Which files of a repository are needed.

A published gpt-oss contains its weights twice: as shards at the top level, for transformers and other
servers, and under `original/`.  The bytes are the same, except that queries, keys and values are separate in
the one and together in the other.  Joining them takes no measurable time: four layers of gpt-oss-20b, 4.2 GB
of random weights, took the CPU backend 6.4 to 7.7 s of processor time from shards and 7.4 to 8.8 s from
original/ (2026-11-22, medians 7.5 and 7.7, 2 cores with AVX-512, three runs each).  So the shards are
downloaded: several connections can download them in parallel, and other programs can use them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The name of a model on the hub: OWNER/NAME."""


class NotAModel(ValueError):
    """The files are not those of a gpt-oss; the message has the reason."""


def wanted(names: Collection[str], read: Callable[[str], bytes]) -> list[str]:
    """The files that are needed for loading: configuration, weights, tokenizer.  Raises NotAModel.

    names  all files, as paths in the repository: `original/config.json`
    read   returns the contents of a file; called only for the index of the shards
    returns paths in the repository; if the index names shards that are missing, they are not in `names`
    """
    for folder in ("", "original/"):
        if weights := _weights(folder, names, read):
            beside = [f"{folder}tokenizer.json", "tokenizer.json"]
            tokenizer = next((name for name in beside if name in names), None)
            if tokenizer is None:
                raise NotAModel("there is no tokenizer.json")
            if f"{folder}config.json" not in names:
                raise NotAModel(f"there is no {folder}config.json")
            return [f"{folder}config.json", tokenizer, *weights]
    raise NotAModel("there are no *.safetensors, at its top or in original/")


def _weights(folder: str, names: Collection[str], read: Callable[[str], bytes]) -> list[str]:
    """The safetensors directly in `folder`: the index and those that it names; without an index, all."""
    beside = sorted(
        name for name in names if name.startswith(folder) and "/" not in name.removeprefix(folder)
    )
    indexes = [name for name in beside if fnmatchcase(name, "*.safetensors.index.json")]
    if not indexes:
        return [name for name in beside if fnmatchcase(name, "*.safetensors")]
    try:
        shards = {PurePosixPath(name).name for name in json.loads(read(indexes[0]))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAModel(
            f"{indexes[0]} is not an index of safetensors: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    return [indexes[0], *(folder + shard for shard in sorted(shards))]
