"""The log on stderr, as text or JSON: one line for each finished request, without its contents or keys."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any

requests = logging.getLogger("gptoss.requests")

MAX_PATH = 256
"""Maximum characters of a path in the log."""


@dataclass(slots=True)
class Figures:
    """Statistics of one request: collected while it is answered, logged when it has finished."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    """Prompt tokens that were not in the prefix cache."""
    prompt_seconds: float = 0.0
    """Time to compute the prompt, without the wait in the queue."""
    completion_tokens: int = 0
    first_token_at: float | None = None
    """In `time.perf_counter` seconds."""
    finish: list[str] = field(default_factory=list)
    """The finish reason of each choice."""
    recoveries: int = 0
    """Deviations from the harmony format that were repaired."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a finished request.

    status      of the response; 499: the client disconnected before there was one
    started_at  in `time.perf_counter` seconds, like ended_at
    figures     None if the request asked for no answer
    """

    status: int
    started_at: float
    figures: Figures | None
    ended_at: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return self.ended_at - self.started_at

    @property
    def first_token_seconds(self) -> float | None:
        if self.figures is None or self.figures.first_token_at is None:
            return None
        return self.figures.first_token_at - self.started_at


def finished(request_id: str, method: str, path: str, outcome: Outcome) -> None:
    """Log a finished request."""
    quiet = path in ("/health", "/ready", "/metrics", "/page/markdown")  # requested many times a minute
    if len(path) > MAX_PATH:
        path = path[:MAX_PATH] + "…"
    facts: dict[str, Any] = {"request": request_id, "method": method, "path": path, "status": outcome.status}
    facts["seconds"] = round(outcome.seconds, 4)
    if outcome.first_token_seconds is not None:
        facts["first_token_seconds"] = round(outcome.first_token_seconds, 4)
    if (figures := outcome.figures) is not None:
        facts["prompt_tokens"] = figures.prompt_tokens
        facts["cached_tokens"] = figures.cached_tokens
        if figures.computed_tokens and figures.prompt_seconds:
            speed = figures.computed_tokens / figures.prompt_seconds
            facts["prompt_tokens_per_second"] = round(speed, 1)
        facts["completion_tokens"] = figures.completion_tokens
        facts["finish"] = ",".join(figures.finish)
    requests.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": facts})


def escaped(text: str) -> str:
    """`text` on one line, with escape sequences for everything that a terminal interprets or hides: control
    characters, line separators, bidirectional marks, unpaired surrogates.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _fact(value: Any) -> str:
    """A value in a text line, quoted unless it is one word, so that a client cannot forge further values."""
    text = str(value)
    if re.fullmatch(r"[\w./:,+@%~*-]*", text, re.ASCII):
        return text
    return json.dumps(text)


class TextFormatter(logging.Formatter):
    """One line for a record.  Lines of a traceback follow indented, so that none looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.name}: "
        facts = getattr(record, "facts", {})
        line = head + " ".join(
            [escaped(record.getMessage()), *(f"{name}={_fact(value)}" for name, value in facts.items())]
        )
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line = "\n".join([line, *(f"    {escaped(each)}" for each in lines)])
        return line


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, form: str) -> None:
    """Send all logs to stderr.  `level` and `form` as in Settings.log_level and log_format."""
    logging.raiseExceptions = False  # a line that cannot be written is lost, without further effect
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("uvicorn.error", "asyncio", "sse_starlette", "httpx2"):
        logging.getLogger(chatty).setLevel("WARNING")
