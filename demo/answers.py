"""A sample as tokens: the prompt as the server renders it, and the answer that the model should give."""

from __future__ import annotations

from demo.corpus.sample import Answer, Sample
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer


def sample_tokens(tokenizer: Tokenizer, renderer: Renderer, sample: Sample) -> tuple[list[int], list[int]]:
    """The prompt, and the tokens to be sampled after it, of which the last ends the answer."""
    prompt = renderer.render(sample.conversation)
    return prompt, answer_tokens(tokenizer, sample.answer, prefilled=sample.conversation.effort == "none")


def answer_tokens(tokenizer: Tokenizer, answer: Answer, prefilled: bool) -> list[int]:
    """The answer in harmony; `prefilled`: the prompt ends inside the final channel."""
    encode, special = tokenizer.encode, tokenizer.special
    channel, message = special("<|channel|>"), special("<|message|>")
    if prefilled:
        assert answer.final is not None
        return [*encode(answer.final), special("<|return|>")]
    tokens: list[int] = []
    if answer.analysis is not None:
        tokens += [channel, *encode("analysis"), message, *encode(answer.analysis)]
        tokens += [special("<|end|>"), special("<|start|>"), *encode("assistant")]
    if answer.call is not None:
        header = [
            *encode(f"commentary to=functions.{answer.call.name} "),
            special("<|constrain|>"),
            *encode("json"),
        ]
        return [*tokens, channel, *header, message, *encode(answer.call.arguments), special("<|call|>")]
    assert answer.final is not None
    return [*tokens, channel, *encode("final"), message, *encode(answer.final), special("<|return|>")]
