"""Averages the weights of several moments of a training and exports the mean.

    python -m demo.average OUT FOLDER CHECKPOINT ...

Each is a folder of exported weights or a run's checkpoint (last.pt), which has its experts before they are
rounded to MXFP4.  What training added by chance is in part averaged away (model soups, arXiv:2203.05482).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from demo.network import CONFIG, Network
from demo.train import WEIGHTS
from model.config import ModelConfig


def averaged(paths: Sequence[Path], config: ModelConfig = CONFIG) -> Network:
    """A network whose parameters are the means of those of `paths`."""
    if not paths:
        raise ValueError("there are no weights to average")
    states = [_read(path, config).state_dict() for path in paths]
    mean = Network(config, seed=0)
    mean.load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    return mean


def _read(path: Path, config: ModelConfig) -> Network:
    network = Network(config, seed=0)
    if path.is_dir():
        network.take(path)
    else:
        network.load_state_dict(torch.load(path, weights_only=True)["network"])
    return network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the averaged weights")
    parser.add_argument("paths", type=Path, nargs="+", help="folders of weights, or checkpoints")
    options = parser.parse_args()
    averaged(options.paths).export(options.out)
    shutil.copy(WEIGHTS / "tokenizer.json", options.out)


if __name__ == "__main__":
    main()
