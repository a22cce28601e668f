"""A model that follows a script, in the real engine and the real server.

It samples the tokens of given harmony texts, one for each request.  So tests can run a long conversation, or
an agent's whole loop of calls, for which the demo model is too small.  Everything else is real: rendering,
grammars and their masks, sampling, the scheduler, pages and the prefix cache, cancellation, HTTP.  (The
worker of tests/server/fakes.py has no engine, and can fail in ways in which an engine does not.)

    script = Script(call("add", '{"a": 1, "b": 2}'), final("3"), when("weather", final("Sunny.")))
    with scripted(script) as server:
        ...                                 # server.url; script.prompts afterwards

As a process, for clients that are not in Python.  FILE is a JSON list of lines (see `lines`); settings are
the flags of `gptoss serve`:

    python -m tests.server.scripted FILE --port 8000 --prompts PROMPTS

Each prompt is written to PROMPTS, as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.admission import Limits
from engine.engine import Engine
from engine.errors import EngineError
from engine.request import Plan, Request
from engine.runner import Runner
from engine.sampling import Sampled
from engine.worker import TokenStream, Worker
from gptoss.assembly import DEMO
from gptoss.serve import Server, bind
from language.tokenizer import Tokenizer
from model.batch import Batch, KVCache
from model.config import ModelConfig
from server import settings_sources
from server.app import create_app
from server.dialogue.store import Store
from server.settings import Settings
from tests.server.fakes import Pause, call, final, serving

SURE = 1000.0
"""The logit of the script's token; all others are 0.  So no temperature or penalty changes the
chosen token.  A mask does: then any token that it allows may be chosen.
"""


class Broken:
    """Instead of a token: the model's logits are not finite, and the request fails."""


Part = str | Pause | Broken
"""Text with special tokens by name; or what happens between tokens."""

Transcript = Part | Sequence[Part]


@dataclass(frozen=True)
class When:
    """A line for all requests whose prompt it matches."""

    fits: Callable[[str], bool]
    transcript: Transcript


def when(fits: str | Callable[[str], bool], transcript: Transcript) -> When:
    """A line for all matching requests.

    fits  a function of the prompt's text, with special tokens by name; or a regular expression to find in it
    """
    if isinstance(fits, str):
        found = re.compile(fits, re.DOTALL)
        return When(lambda prompt: found.search(prompt) is not None, transcript)
    return When(fits, transcript)


class ScriptEnded(EngineError):
    """The script has no line for a request: HTTP 500."""

    def __init__(self, prompt: str):
        super().__init__(f"the script has no line for this prompt, which ends in {prompt[-200:]!r}")


class Script:
    """The lines for all requests: the first `when` that matches the prompt, otherwise the next of the other
    lines.

    prompts  all prompts so far, with special tokens by name
    pace     seconds of each step
    reading  seconds to compute each token of a prompt
    """

    def __init__(self, *lines: Transcript | When, pace: float = 0.0, reading: float = 0.0):
        self.prompts: list[str] = []
        self.pace, self.reading = pace, reading
        self.add(*lines, first=True)

    def add(self, *lines: Transcript | When, first: bool = False) -> None:
        """Add lines: before the remaining ones if `first`, otherwise after them."""
        if first:
            self._fitting: list[When] = []
            self._next: list[Transcript] = []
        self._fitting += [line for line in lines if isinstance(line, When)]
        self._next += [line for line in lines if not isinstance(line, When)]

    def line(self, prompt: str) -> Sequence[Part]:
        """The line for a prompt.  Raises ScriptEnded."""
        self.prompts.append(prompt)
        found = next((line.transcript for line in self._fitting if line.fits(prompt)), None)
        if found is None:
            if not self._next:
                raise ScriptEnded(prompt)
            found = self._next.pop(0)
        return _parts(found)

    def take_back(self, line: Sequence[Part]) -> None:
        """Return the latest line, which was not used; the next request gets it."""
        self.prompts.pop()
        if not any(line == _parts(each.transcript) for each in self._fitting):
            self._next.insert(0, line)

    @property
    def left(self) -> int:
        """Number of unused lines, not counting those with `when`."""
        return len(self._next)


def _parts(transcript: Transcript) -> Sequence[Part]:
    return [transcript] if isinstance(transcript, str | Pause | Broken) else transcript


class WrittenScript(Script):
    """A script that writes its prompts to a file, each as a line of JSON."""

    def __init__(self, file: Path | None, *lines: Transcript | When, **more: float):
        super().__init__(*lines, **more)
        self._file = file

    def line(self, prompt: str) -> Sequence[Part]:
        if self._file is not None:
            with self._file.open("a") as written:
                print(json.dumps(prompt), file=written)
        return super().line(prompt)


@dataclass
class Playing:
    """The answer to one request; it ends after its last token.

    tokens  of the answer
    before  index of a token → what happens before it
    """

    tokens: list[int] = field(default_factory=list)
    before: dict[int, Pause | Broken] = field(default_factory=dict)


class ScriptedModel:
    """Replaces a `Model`.  `playing` has the answers to the sequences of the next step."""

    page_size = 32
    page_bytes = 1
    weight_bytes = 0
    device = torch.device("cpu")

    def __init__(self, tokenizer: Tokenizer, script: Script, max_context: int):
        self.config = replace(
            ModelConfig.read(DEMO),
            vocab_size=tokenizer.end,
            initial_context_length=max_context,
            rope_scaling_factor=1.0,
        )
        self._script, self._end = script, tokenizer.special("<|return|>")
        self.playing: dict[str, Playing] = {}
        self.plan: Plan | None = None

    def new_cache(self, num_pages: Any) -> KVCache:
        return KVCache(torch.zeros(1, num_pages), torch.zeros(1, num_pages))

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        assert self.plan is not None
        read = sum(chunk.length for chunk in self.plan.chunks if not chunk.sequence.answered)
        time.sleep(self._script.pace + self._script.reading * read)
        logits = torch.zeros(len(batch.samples), self.config.vocab_size)
        for row, chunk in enumerate(chunk for chunk in self.plan.chunks if chunk.samples):
            played, place = self.playing[chunk.sequence.request.id], chunk.sequence.answered
            event = played.before.get(place)
            if isinstance(event, Pause):
                time.sleep(event.seconds)
            token = played.tokens[place] if place < len(played.tokens) else self._end
            logits[row, token] = torch.nan if isinstance(event, Broken) else SURE
        return logits


class ScriptedRunner(Runner):
    """A runner that tells the scripted model which requests it computes."""

    model: ScriptedModel

    def run(self, plan: Plan) -> Sampled:
        self.model.plan = plan
        return super().run(plan)


class ScriptedWorker(Worker):
    """A worker that looks up the line of each request."""

    def __init__(self, tokenizer: Tokenizer, script: Script, settings: Settings):
        self.tokenizer, self.script = tokenizer, script
        max_context = self.max_context = settings.max_context or 131_072
        self._model = ScriptedModel(tokenizer, script, max_context)
        limits = Limits(
            num_pages=4 * max_context // ScriptedModel.page_size,
            page_size=ScriptedModel.page_size,
            window=self._model.config.sliding_window,
            max_context=max_context,
            max_running=settings.max_running,
            max_tokens_per_step=settings.max_tokens_per_step or 512,
            max_queued=settings.max_queued,
            prefix_cache=settings.prefix_cache,
        )
        super().__init__(Engine(ScriptedRunner(self._model, limits.num_pages, tokenizer.end), limits))

    def submit(self, request: Request) -> TokenStream:
        """The same as in `Worker`; also raises ScriptEnded."""
        self._engine.check(request)
        line = self.script.line(self.tokenizer.decode(request.prompt))
        playing = Playing()
        for part in line:
            if isinstance(part, str):
                playing.tokens += self.tokenizer.encode_with_specials(part)
            else:
                playing.before[len(playing.tokens)] = part
        self._model.playing[request.id] = playing
        try:
            return super().submit(request)
        except EngineError:
            self.script.take_back(line)
            raise


class Cuttable:
    """An application whose connections can be cut, as by a proxy or a machine that dies."""

    def __init__(self, app: Any):
        self._app, self.cuts = app, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if self.cuts and message["type"] == "http.response.body":
                self.cuts = False
                raise ConnectionAbortedError("cut, as a test wanted it")
            await send(message)

        await self._app(scope, receive, sent)


@dataclass(frozen=True)
class Scripted:
    """A server whose model follows a script.

    items  the store of responses and conversations
    cut    end the next piece of a response's body, and its connection, instead of sending it
    """

    url: str
    script: Script
    worker: ScriptedWorker
    items: Store
    cut: Callable[[], None]


@contextmanager
def scripted(
    script: Script, settings: Settings | None = None, tokenizer: Tokenizer | None = None
) -> Iterator[Scripted]:
    """A context with a real server on a free port.

    tokenizer  None: the demo model's
    """
    settings = settings or Settings(date="2025-06-28")
    worker, app = assemble(script, settings, tokenizer)
    cuttable = Cuttable(app)

    def cut() -> None:
        cuttable.cuts = True

    with serving(cuttable) as url:
        yield Scripted(url, script, worker, app.state.service.store, cut)


SUMMARY = "device: none, kernels: scripted\nmemory: none is needed"


def assemble(
    script: Script, settings: Settings, tokenizer: Tokenizer | None = None
) -> tuple[ScriptedWorker, Any]:
    """The worker and its application."""
    tokenizer = tokenizer or Tokenizer(DEMO / "tokenizer.json")
    worker = ScriptedWorker(tokenizer, script, settings)
    model_id = (*settings.served_model_name, "scripted")[0]
    return worker, create_app(worker, tokenizer, settings, model_id, worker.max_context, "fp_script", SUMMARY)


def lines(found: Any) -> list[Transcript | When]:
    """The lines of a JSON list of objects:

    {"final": TEXT, "thought": TEXT}                     an answer; the thought may be left out
    {"call": NAME, "arguments": JSON, "thought": TEXT}   a call of a function
    {"text": TRANSCRIPT}                                 any harmony text after `<|start|>assistant`
    {"pause": SECONDS}, {"broken": true}                 within a list of such objects: {"parts": […]}

    With "when", a regular expression, a line is for all prompts in which it is found; without, for one
    request, in order.
    """
    found_lines: list[Transcript | When] = []
    for entry in found:
        parts = [_part(each) for each in entry.get("parts", [entry])]
        found_lines.append(when(entry["when"], parts) if "when" in entry else parts)
    return found_lines


def _part(entry: Mapping[str, Any]) -> Part:
    thought = entry.get("thought", "")
    if "final" in entry:
        return final(entry["final"], thought)
    if "call" in entry:
        arguments = entry.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)  # the mask allows only necessary escapes
        return call(entry["call"], arguments, thought)
    if "text" in entry:
        return str(entry["text"])
    if "pause" in entry:
        return Pause(entry["pause"])
    if "broken" in entry:
        return Broken()
    raise ValueError(f"a line has one of final, call, text, parts, pause, broken; this has {list(entry)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.server.scripted", description=__doc__)
    parser.add_argument("file", type=Path, help="the script, in JSON")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds for each step")
    parser.add_argument("--prompts", type=Path, help="file to which each prompt is written")
    parser.add_argument("--reading", type=float, default=0.0, help="seconds for each token of a prompt")
    settings_sources.add_flags(parser, [each.name for each in fields(Settings)])
    asked = vars(parser.parse_args(argv))
    settings = settings_sources.read(asked, {})
    listener = bind(settings.host, settings.port)
    script = WrittenScript(
        asked["prompts"],
        *lines(json.loads(asked["file"].read_text())),
        pace=asked["pace"],
        reading=asked["reading"],
    )
    worker, app = assemble(script, settings)
    host, port = listener.getsockname()[:2]
    url = f"http://{host}:{port}"
    server = Server(app, worker, settings.grace, settings.max_connections, url, banner=f"listening on {url}")
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
