"""`gptoss generate PROMPT`: one answer on the terminal, without a server.

The prompt is raw text, in which names of special tokens become special tokens, or with --chat a user's
message.  The last lines are the whole output, the numbers of tokens, and the times of loading, prompt and
answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

from engine.request import SamplingParams, Token
from gptoss.llm import LLM
from gptoss.progress import PromptBar
from gptoss.results import answer_of
from language.harmony.messages import Conversation, Message
from language.tokenizer import Tokenizer
from server.api.logprobs import token_text
from server.dialogue.answer import AnswerReader
from server.dialogue.turn import Turn
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, and numbers of tokens."""

    load: float
    prefill: float
    decode: float
    prompt_tokens: int
    answer_tokens: int

    def __str__(self) -> str:
        after_first = self.answer_tokens - 1  # the first is sampled in the last step of the prompt
        speed = f" ({after_first / self.decode:.1f} tokens/s)" if after_first and self.decode else ""
        return (
            f"tokens: {self.prompt_tokens} of prompt, {self.answer_tokens} of answer\n"
            f"load {self.load:.2f} s, prefill {self.prefill:.3f} s, decode {self.decode:.3f} s{speed}"
        )


def generate(settings: Settings, asked: argparse.Namespace) -> None:
    """Print the answer.  Raises StartError or EngineError."""
    with LLM.of(settings) as llm:
        _generate(llm, asked)


def _generate(llm: LLM, asked: argparse.Namespace) -> None:
    turn = _turn(asked, llm.today())
    prompt = llm.prompt_of(turn)
    began = first = time.perf_counter()
    answer: list[Token] = []
    bar = PromptBar(sys.stderr)
    try:
        bar.show(0, len(prompt))
        for tokens in llm.steps(turn):
            if tokens:
                bar.clear()
            elif (reading := llm.reading) is not None:
                bar.show(*reading)
            for token in tokens:
                now = time.perf_counter()
                first = first if answer else now
                answer.append(token)
                if asked.debug:
                    _print_token(token, now - began, llm.tokenizer)
    finally:
        bar.clear()
    ended = time.perf_counter()
    if asked.chat:
        _print_answer(answer, turn, llm)
    else:
        print(f"\nFINAL OUTPUT\n{llm.tokenizer.decode(token.id for token in answer)}\n")
    print(Times(llm.assembled.load_seconds, first - began, ended - first, len(prompt), len(answer)))


def _turn(asked: argparse.Namespace, day: str) -> Turn:
    message = Message("user", asked.prompt)
    return Turn(
        prompt=Conversation([message], effort=asked.effort, date=day) if asked.chat else asked.prompt,
        max_tokens=asked.max_tokens,
        sampling=SamplingParams(
            temperature=asked.temperature, seed=asked.seed, logprobs=0 if asked.debug else None
        ),
    )


def _print_token(token: Token, seconds: float, tokenizer: Tokenizer) -> None:
    """Print the seconds since the start, id, log-probability and text of a token."""
    assert token.logprob is not None
    text = token_text(tokenizer, token.id)
    print(f"{seconds:9.4f} s  {token.id:6d}  {token.logprob.logprob:9.4f}  {text!r}", flush=True)


def _print_answer(tokens: list[Token], turn: Turn, llm: LLM) -> None:
    """Print the chain of thought and the visible answer."""
    reader = AnswerReader(turn, llm.renderer)
    answer = answer_of(reader.feed(tokens), reader, 0)
    if answer.reasoning:
        print(f"\nREASONING\n{answer.reasoning}")
    calls = "".join(f"{call.name} {call.arguments}" for call in answer.calls)
    print(f"\nFINAL OUTPUT\n{answer.content}{calls}\n")
