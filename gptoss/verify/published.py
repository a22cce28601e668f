"""What others have published about the real weights: what `gptoss verify` expects.

Greedy continuations of raw prompts are those of transformers' GptOssForCausalLM, whose variants (eager and
flash attention, bfloat16 and MXFP4) agree on the first twelve tokens.  The perplexity is that of llama.cpp's
`llama-perplexity` on the raw test split of wikitext-2.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.config import ModelConfig

AGREED_TOKENS = 12
"""Tokens of a continuation on which different programs with the same weights agree."""

TOKENIZER = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"
"""SHA-256 of the tokenizer.json that openai/gpt-oss-20b and -120b are published with."""

VOCABULARY = 201088


@dataclass(frozen=True, slots=True)
class Published:
    """Facts about one model; None: not published.

    continuations     raw prompt → its greedy continuation
    perplexity        on wikitext-2's raw test split: chunks of 512 tokens, of which the second half counts
    perplexity_error  its standard error
    repaired          share of sampled turns that deviate from the harmony format, at temperature 1
    """

    name: str
    layers: int
    experts: int
    continuations: tuple[tuple[str, str], ...] = ()
    perplexity: float | None = None
    perplexity_error: float | None = None
    perplexity_chunks: int = 128
    repaired: float | None = None


MODELS = (
    Published(
        name="openai/gpt-oss-20b",
        layers=24,
        experts=32,
        continuations=(
            ("Roses are red, violets", " are blue, I love you, and I love you too"),
            (
                "How are you? Tell me the name of the president of",
                ' the United States." The assistant should respond with the name of the president. '
                "The user is asking for",
            ),
        ),
        perplexity=195.72,
        perplexity_error=3.46,
        repaired=0.04,
    ),
    Published(
        name="openai/gpt-oss-120b",
        layers=36,
        experts=128,
        continuations=(
            ("Roses are red, violets", " are blue, I am a language model, and I can help you too!"),
        ),
    ),
)


def published(config: ModelConfig) -> Published | None:
    """The published model of these sizes, if there is one."""
    for model in MODELS:
        if (config.num_layers, config.num_experts, config.vocab_size) == (
            model.layers,
            model.experts,
            VOCABULARY,
        ):
            return model
    return None
