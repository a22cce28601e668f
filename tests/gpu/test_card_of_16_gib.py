"""gpt-oss-20b with its whole context on a GPU of 16 GiB: all memory is allocated and used.

python -m pytest -m gpu tests/gpu
"""

import gc

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU that torch can use", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed")

from bench.gpu.load import Random
from engine.admission import Limits
from engine.engine import Engine
from engine.memory import GIB, plan
from engine.request import Request, SamplingParams, Token
from engine.runner import Runner
from model.backends.triton.triton_model import TritonModel
from model.backends.triton.weights import Reader
from model.loading.synthetic import SIZES

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CUDA = torch.device("cuda", 0)


def test_20b_with_128k_of_context_fits_a_card_of_16_gib():
    """With a limit of 15.5 GiB: weights, cache, a chunk of a prompt and a decode at the end of the context,
    as the printed plan says.  The limit applies to this process, on any GPU.
    """
    card = int(15.5 * GIB)
    total = torch.cuda.mem_get_info()[1]
    if total < card:
        pytest.skip("this GPU has less")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(card / total)
    try:
        config = SIZES["20b"]
        with torch.inference_mode():
            weights = Reader(Random(config), CUDA, torch.bfloat16, "int8").all()
            model = TritonModel(config, weights, kv_cache_dtype="fp8")
        torch.cuda.empty_cache()
        made = plan(
            model.weight_bytes,
            model.page_bytes,
            model.page_size,
            config.sliding_window,
            card,
            max_context=config.max_context,
            max_running=64,
        )
        print(made)
        assert made.context_tokens == config.max_context == 131_072
        limits = Limits(
            num_pages=made.num_pages,
            page_size=model.page_size,
            window=config.sliding_window,
            max_context=config.max_context,
        )
        engine = Engine(Runner(model, made.num_pages), limits)
        prompt = [(7 * i * i) % 200_000 for i in range(131_000)]
        greedy = SamplingParams(temperature=0.0)
        engine.add(Request("long", prompt, max_tokens=3, sampling=greedy))
        said = []
        while engine.busy:
            for event in engine.step():
                assert isinstance(event, Token), event
                said.append(event.id)
        assert len(said) == 3
        assert torch.cuda.max_memory_reserved() <= card
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
