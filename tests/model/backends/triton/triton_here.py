"""Where the Triton kernels run in tests: on a GPU if there is one, else in Triton's interpreter.

To be imported before anything of model.backends.triton: kernels become interpreted when they are defined.
"""

import os

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="Triton is not installed")
