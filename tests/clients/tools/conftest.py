"""The demo's tokenizer, in the format that programs based on transformers expect."""

import json
import shutil
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "demo" / "weights" / "tokenizer.json"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(DEMO, folder)
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder
