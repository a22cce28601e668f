"""What the program writes to stderr: text or JSON, one line for each finished request, never its contents
or keys.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from typing import Any

requests = logging.getLogger("gptoss.requests")


@dataclass(slots=True)
class Figures:
    """Of one request: gathered while it is answered, written when it is over."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_at: float | None = None
    """In `time.perf_counter` seconds."""
    finish: str = ""


def finished(
    request_id: str, method: str, path: str, status: int, started_at: float, figures: Figures | None
) -> None:
    """One line about one request.  A status of 499 means that the client left."""
    facts: dict[str, Any] = {"request": request_id, "method": method, "path": path, "status": status}
    facts["seconds"] = round(time.perf_counter() - started_at, 4)
    if figures is not None:
        if figures.first_token_at is not None:
            facts["first_token_seconds"] = round(figures.first_token_at - started_at, 4)
        facts["prompt_tokens"] = figures.prompt_tokens
        facts["cached_tokens"] = figures.cached_tokens
        facts["completion_tokens"] = figures.completion_tokens
        facts["finish"] = figures.finish
    quiet = path in ("/health", "/ready", "/metrics")  # a probe every few seconds
    requests.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": facts})


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", {})
        return " ".join([super().format(record), *(f"{name}={value}" for name, value in facts.items())])


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
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("uvicorn.error", "asyncio", "sse_starlette"):
        logging.getLogger(chatty).setLevel("WARNING")
