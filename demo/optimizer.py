"""Muon for the matrices inside the layers, Adam for everything else.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces a matrix's momentum by the nearest
orthogonal matrix, so that all directions are learned at one rate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """For parameters [L, ..., rows, columns], of which each trailing matrix is updated separately.

    If there are several workers, each computes its share of the L layers for all.

    dtype  of the products in `orthogonal`
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self._dtype = dtype
        together = torch.distributed.is_initialized()
        self._rank = torch.distributed.get_rank() if together else 0
        self._workers = torch.distributed.get_world_size() if together else 1

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        mine = slice(self._rank, None, self._workers)
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - group["momentum"])
                nesterov = gradient.lerp(momentum, group["momentum"])
                rows, columns = parameter.shape[-2:]
                update = torch.zeros_like(nesterov)
                update[mine] = orthogonal(nesterov[mine], self._dtype)
                if self._workers > 1:
                    torch.distributed.all_reduce(update)
                parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximately the nearest orthogonal matrices [..., rows, columns]: five Newton-Schulz steps in
    `dtype`.
    """
    shape = matrices.shape
    x = matrices.flatten(0, -3).to(dtype)
    tall = shape[-2] > shape[-1]
    x = x.transpose(-1, -2) if tall else x
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(dtype)
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.transpose(-1, -2) if tall else x).reshape(shape).to(matrices.dtype)
