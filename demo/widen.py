"""Widens the experts of a run's checkpoint to the sizes of `CONFIG`; the network still computes the same.

    python -m demo.widen RUN

New units have random inputs and weigh nothing in the output (Net2Net, arXiv:1511.05641), so training
continues from the same loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.network import CONFIG, Network
from demo.train import MATRICES
from model.config import ModelConfig

UNITS = {"mlp1": -2, "mlp1_bias": -1, "mlp2": -1}
"""The parameters with one row or column for each unit of an expert, and that dimension."""


def widened(saved: dict[str, Any], config: ModelConfig = CONFIG, seed: int = 0) -> dict[str, Any]:
    """The checkpoint with new units, whose weights and momenta are 0, except for random inputs."""
    fresh = Network(config, seed).state_dict()
    network = dict(saved["network"])
    for name, dimension in UNITS.items():
        network[name] = _padded(network[name], fresh[name].shape, dimension)
    old = saved["network"]["mlp1"].shape[-2]
    network["mlp1"][..., old:, :] = fresh["mlp1"][..., old:, :]
    muon, adam = saved["optimizers"]
    others = [name for name in fresh if name not in (*MATRICES, "embedding", "unembedding")]
    for states, names in (
        (muon["state"], list(MATRICES)),
        (adam["state"], ["embedding", "unembedding", *others]),
    ):
        for place, name in enumerate(names):
            if name in UNITS and place in states:
                states[place] = {
                    key: _padded(value, fresh[name].shape, UNITS[name]) if value.dim() else value
                    for key, value in states[place].items()
                }
    return {**saved, "network": network}


def _padded(tensor: Tensor, shape: torch.Size, dimension: int) -> Tensor:
    behind = -dimension - 1
    return F.pad(tensor, (0, 0) * behind + (0, shape[dimension] - tensor.shape[dimension]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    kept = parser.parse_args().run / "last.pt"
    saved = torch.load(kept, weights_only=True)
    torch.save(widened(saved), kept.with_suffix(".next"))
    kept.with_suffix(".next").rename(kept)


if __name__ == "__main__":
    main()
