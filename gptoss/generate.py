"""`gptoss generate PROMPT`: one answer on the terminal, without a server.

The prompt is raw text, in which special tokens are live, or with --chat a user's message in harmony.  It
ends with the whole output, the number of tokens, and how long loading, the prompt and the answer took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from engine.engine import Engine
from engine.request import Failure, Request, SamplingParams, Token
from gptoss.assembly import assemble
from language.harmony.messages import Conversation, Message
from language.harmony.reader import CallDelta, CallStart, ContentDelta, Reader, ReasoningDelta
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from server.dialogue.logprobs import name
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, and how many tokens they were spent on."""

    load: float
    prefill: float
    decode: float
    prompt_tokens: int
    answer_tokens: int

    def __str__(self) -> str:
        after_first = self.answer_tokens - 1  # the first comes out of the prompt's last step
        speed = f" ({after_first / self.decode:.1f} tokens/s)" if after_first and self.decode else ""
        return (
            f"tokens: {self.prompt_tokens} of prompt, {self.answer_tokens} of answer\n"
            f"load {self.load:.2f} s, prefill {self.prefill:.3f} s, decode {self.decode:.3f} s{speed}"
        )


def generate(settings: Settings, asked: argparse.Namespace) -> None:
    """Print the answer.  Raises StartError or EngineError."""
    assembled = assemble(settings)
    request = _request(settings, asked, assembled.tokenizer)
    began = first = time.perf_counter()
    ids: list[int] = []
    for token in _answer(assembled.engine, request):
        now = time.perf_counter()
        first = first if ids else now
        ids.append(token.id)
        if asked.debug:
            _print_token(token, now - began, assembled.tokenizer)
    ended = time.perf_counter()
    _print_output(ids, asked, assembled.tokenizer)
    print(Times(assembled.load_seconds, first - began, ended - first, len(request.prompt), len(ids)))


def _request(settings: Settings, asked: argparse.Namespace, tokenizer: Tokenizer) -> Request:
    renderer = Renderer(tokenizer)
    document = tokenizer.special("<|endoftext|>")
    if asked.chat:
        day = settings.date or date.today().isoformat()
        prompt = renderer.render(Conversation([Message("user", asked.prompt)], effort=asked.effort, date=day))
    else:
        prompt = tokenizer.encode_with_specials(asked.prompt) or [document]
    return Request(
        id="generate",
        prompt=prompt,
        max_tokens=asked.max_tokens,
        stop_tokens=renderer.stop_tokens if asked.chat else renderer.stop_tokens | {document},
        sampling=SamplingParams(
            temperature=asked.temperature, seed=asked.seed, logprobs=0 if asked.debug else None
        ),
    )


def _answer(engine: Engine, request: Request) -> Iterator[Token]:
    engine.add(request)
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Failure):
                raise event.error
            yield event


def _print_token(token: Token, seconds: float, tokenizer: Tokenizer) -> None:
    """Seconds since the prompt went in, id, log-probability, text."""
    assert token.logprob is not None
    text = name(tokenizer, token.id)
    print(f"{seconds:9.4f} s  {token.id:6d}  {token.logprob.logprob:9.4f}  {text!r}", flush=True)


def _print_output(ids: list[int], asked: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """With --chat: what was thought, and then what was said or called."""
    if not asked.chat:
        print(f"\nFINAL OUTPUT\n{tokenizer.decode(ids)}\n")
        return
    reader = Reader(tokenizer, "final" if asked.effort == "none" else None)
    thought: list[str] = []
    said: list[str] = []
    for delta in [delta for id in ids for delta in reader.feed(id)] + reader.finish():
        match delta:
            case ReasoningDelta(text):
                thought.append(text)
            case ContentDelta(text) | CallDelta(_, text):
                said.append(text)
            case CallStart(_, function):
                said.append(f"{function} ")
    if thought:
        print(f"\nREASONING\n{''.join(thought)}")
    print(f"\nFINAL OUTPUT\n{''.join(said)}\n")
