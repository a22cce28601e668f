"""Which files of a repository are the model.

A published gpt-oss holds its weights twice: in shards at its top, as transformers and other servers read
them, and under `original/`.  They are the same bytes but for queries, keys and values, which are apart in the
one and together in the other.  Joining them costs nothing that can be measured: four layers of gpt-oss-20b,
4.2 GB of random weights, took the CPU backend 6.4 to 7.7 s of processor time in shards and 7.4 to 8.8 s from
original/ (2026-11-22, medians 7.5 and 7.7, 2 cores with AVX-512, three runs each).  So the shards are taken:
they come over several connections at once, and other programs find them in the cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The name of a model on the hub: whose, and what."""


class NotAModel(ValueError):
    """What keeps these files from being a gpt-oss."""


def wanted(names: Collection[str], read: Callable[[str], bytes]) -> list[str]:
    """The files that loading needs: configuration, weights, tokenizer.  Raises NotAModel.

    names  all there are, from the top of the repository: `original/config.json`
    read   the contents of one of them, asked for the index of the shards only
    returns them in the order of `names`' folders; shards that the index names may be none of `names`
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
    """The safetensors directly in `folder`: those that its index names, and the index; or all there are."""
    beside = sorted(
        name for name in names if name.startswith(folder) and "/" not in name.removeprefix(folder)
    )
    indexes = [name for name in beside if fnmatchcase(name, "*.safetensors.index.json")]
    if not indexes:
        return [name for name in beside if fnmatchcase(name, "*.safetensors")]
    try:
        shards = {PurePosixPath(name).name for name in json.loads(read(indexes[0]))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAModel(f"{indexes[0]} is no index of safetensors: {error!r}") from None
    return [indexes[0], *(folder + shard for shard in sorted(shards))]
