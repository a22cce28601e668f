"""Selects where the Triton kernels run in tests: on a GPU if there is one, otherwise in Triton's interpreter.

Must be imported before anything of model.backends.triton, because a kernel is interpreted or not from its
definition on.
"""

import os
from contextlib import contextmanager

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="Triton is not installed")


@contextmanager
def wide_tiles(*tiles):
    """Tiles of 64 outputs in the interpreter, which is slow for each program; no change on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for tile in tiles if DEVICE.type == "cpu" else ():
            patch.setitem(tile, "BN", 64)
        yield patch
