"""gpt-oss in plain PyTorch: slow, on any device.  It defines the correct result.

gpt_oss.py     the network
arithmetic.py  attention over pages, the experts in MXFP4, the unembedding
"""

from __future__ import annotations

import torch

from model.backends.reference.gpt_oss import GptOss
from model.interfaces import Backend
from model.loading.tensors import TensorSource
from model.parallel.ranks import ALONE, Ranks


def build(
    checkpoint: TensorSource,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.bfloat16,
    page_size: int = 32,
    ranks: Ranks = ALONE,
) -> GptOss:
    """The checkpoint's model; see `GptOss` for the options."""
    return GptOss(checkpoint, device, dtype, page_size, ranks=ranks)


BACKEND = Backend("reference", build, defaults={})
