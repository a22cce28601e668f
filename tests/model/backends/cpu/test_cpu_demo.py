"""The demo model's answers are bit-identical however its CPU kernels run.

Their text is not checked, because it changes with each training.
"""

from dataclasses import dataclass

import pytest
import torch

from demo.tokenizer import WEIGHTS
from engine.admission import Limits
from engine.engine import Engine
from engine.request import Request, SamplingParams
from engine.runner import Runner
from language.tokenizer import Tokenizer
from model.backends.cpu import build
from model.loading.checkpoint import Checkpoint
from tests.model.backends.cpu.cpu_steps import ISAS, Machine
from tests.tools.traffic.historian import finish

CPU = torch.device("cpu")
QUESTIONS = (
    "Hello!",
    "What is the capital of France?",
    "What is 12 + 7?",
    "Repeat after me, word by word: " + "the quick brown fox jumps over the lazy dog, " * 12,
)
GREEDY = SamplingParams(temperature=0, logprobs=3)
ANSWER = 24  # tokens


@dataclass(frozen=True)
class Demo:
    checkpoint: Checkpoint
    prompts: list[list[int]]  # the last one is longer than the window of 128

    def answers(
        self,
        prompts: list[list[int]],
        *,
        isa: str | None = None,
        dense: str = "int8",
        threads: int = 1,
        chunk: int = 512,
    ) -> list[list[object]]:
        """The answers to all prompts, requested at once: tokens with their log-probabilities."""
        model = build(self.checkpoint, CPU, isa=isa, dense=dense, threads=threads)
        limits = Limits(
            num_pages=100,
            page_size=model.page_size,
            window=model.config.sliding_window,
            max_context=1024,
            max_tokens_per_step=chunk,
        )
        engine = Engine(Runner(model, limits.num_pages), limits)
        for n, prompt in enumerate(prompts):
            engine.add(Request(str(n), prompt, ANSWER, sampling=GREEDY))
        events = finish(engine)
        return [[(token.id, token.logprob) for token in events[str(n)]] for n in range(len(prompts))]


@pytest.fixture(scope="module")
def demo():
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    texts = [f"<|start|>user<|message|>{text}<|end|><|start|>assistant" for text in QUESTIONS]
    prompts = [tokenizer.encode_with_specials(text) for text in texts]
    assert len(prompts[-1]) > 128
    return Demo(Checkpoint.open(WEIGHTS), prompts)


@pytest.fixture(scope="module", params=["int8", "bf16"])
def expected(request, demo):
    """The format of dense weights, and the answers one by one with the best instruction set."""
    alone = [demo.answers([prompt], dense=request.param)[0] for prompt in demo.prompts]
    assert len({str(answer) for answer in alone}) == len(alone), "the prompts are to tell answers apart"
    return request.param, alone


@pytest.mark.parametrize("isa", ISAS)
def test_on_every_instruction_set(demo, expected, isa):
    if isa not in Machine.available():
        pytest.skip(f"this processor cannot run {isa}")
    dense, alone = expected
    assert demo.answers(demo.prompts, isa=isa, dense=dense) == alone


@pytest.mark.parametrize(("threads", "chunk"), [(1, 512), (2, 64), (3, 7)])
def test_alone_and_in_company_in_chunks_and_on_many_threads(demo, expected, threads, chunk):
    dense, alone = expected
    assert demo.answers(demo.prompts, dense=dense, threads=threads, chunk=chunk) == alone
