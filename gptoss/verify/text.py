"""Raw text: greedy continuations, alone and in a batch, and the perplexity of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from engine.request import SamplingParams
from gptoss.llm import LLM
from gptoss.verify.published import AGREED_TOKENS, Published
from gptoss.verify.rows import Row, info, judged
from server.dialogue.turn import Turn

CHUNK = 512
"""Tokens of a chunk, of which the second half counts, as in `llama-perplexity`."""

WITHIN_ERRORS = 3
"""Maximum distance from the published perplexity, in standard errors."""

TOGETHER = (
    "Roses are red, violets",
    "def fibonacci(n):",
    "The capital of France is",
    "1, 2, 3, 4,",
    "Once upon a time there was",
)
"""Raw prompts of different lengths, continued alone and in one batch."""

GREEDY = SamplingParams(temperature=0.0)


def check_continuations(llm: LLM, known: Published | None) -> Iterator[Row]:
    if known is None or not known.continuations:
        (answer,) = llm.generate(TOGETHER[0], max_tokens=AGREED_TOKENS, temperature=0)
        yield info("continuation", f"{TOGETHER[0]!r} is continued with {answer.text!r}")
        return
    for prompt, text in known.continuations:
        expected = llm.tokenizer.decode(llm.tokenizer.encode(text)[:AGREED_TOKENS])
        (answer,) = llm.generate(prompt, max_tokens=AGREED_TOKENS, temperature=0, ignore_eos=True)
        yield judged(
            f"continuation of {prompt!r}", repr(expected), repr(answer.text), answer.text.startswith(expected)
        )


def check_batching(llm: LLM, tokens: int) -> Iterator[Row]:
    """In another batch rounding may differ, so that one of two nearly equal tokens is chosen instead."""
    alone = [llm.generate(prompt, max_tokens=tokens, temperature=0)[0].token_ids for prompt in TOGETHER]
    together = [each.token_ids for each in llm.generate(TOGETHER, max_tokens=tokens, temperature=0)]
    same = sum(_agreement(one, other) for one, other in zip(alone, together, strict=True))
    total = sum(map(len, alone))
    yield judged(
        "greedy alone and in a batch",
        "the same tokens, except for ties",
        f"the same up to token {same} of {total}",
        same >= total / 2,
    )


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that agree before the first difference."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def check_perplexity(llm: LLM, text: str, known: Published | None, chunks: int) -> Iterator[Row]:
    """text  the user's text; the published value is for wikitext-2's raw test split"""
    ids = llm.tokenizer.encode(text)
    count = min(chunks, len(ids) // CHUNK)
    if not count:
        yield Row("perplexity", f"a text of {CHUNK} tokens or more", f"{len(ids)} tokens", "wrong")
        return
    losses = chunk_losses(llm, [ids[n * CHUNK : (n + 1) * CHUNK] for n in range(count)])
    mean = sum(losses) / len(losses)
    spread = sum((loss - mean) ** 2 for loss in losses) / max(1, len(losses) - 1)
    error = math.sqrt(spread / len(losses)) * math.exp(mean)
    found = f"{math.exp(mean):.2f} ± {error:.2f} ({count} chunks of {CHUNK})"
    if known is None or known.perplexity is None or known.perplexity_error is None:
        yield info("perplexity", found)
        return
    if count != known.perplexity_chunks:
        yield info("perplexity", f"{found}; the published value is for {known.perplexity_chunks} chunks")
        return
    near = abs(math.exp(mean) - known.perplexity) <= WITHIN_ERRORS * known.perplexity_error
    expected = f"{known.perplexity} ± {known.perplexity_error}, if the text is wikitext-2's raw test split"
    yield judged("perplexity", expected, found, near)


def chunk_losses(llm: LLM, chunks: Sequence[list[int]]) -> list[float]:
    """Mean negative log-likelihood of the second half of each chunk, in nats."""
    turns = [Turn(prompt=chunk, max_tokens=1, sampling=GREEDY, prompt_logprobs=0) for chunk in chunks]
    losses = [0.0] * len(chunks)
    for place, token in llm.run(turns):
        if token.prefill is not None and token.prefill.logprobs is not None:
            half = token.prefill.logprobs[len(chunks[place]) // 2 :]
            losses[place] = -sum(each.logprob for each in half if each) / len(half)
    return losses
