"""Uses one thread, because tensors are tiny and a second thread would only cost time."""

import torch

torch.set_num_threads(1)
