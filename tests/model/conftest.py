"""Tiny tensors: a second thread only costs, most of all on a busy machine."""

import torch

torch.set_num_threads(1)
