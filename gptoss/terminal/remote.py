"""Answers of a server with OpenAI's chat completions, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from gptoss.terminal.answers import CUT_OFF, ChatError, Piece, PromptProgress, Question

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0
"""A server may compute a long prompt for minutes before it sends anything."""


def api_url(url: str) -> str:
    """The base URL: `localhost:8000` becomes http://localhost:8000/v1.  Raises ChatError."""
    try:
        parsed = httpx2.URL(url if "://" in url else f"http://{url}")
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ChatError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    return str(parsed.copy_with(path=path or "/v1", query=None, fragment=None))


class Remote:
    def __init__(self, url: str, api_key: str | None, name: str | None):
        """Asks the server for its models, unless `name` is given.  Raises ChatError."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        self.url = api_url(url)
        self._http = httpx2.Client(headers=headers, timeout=timeout, follow_redirects=True)
        self.name = name or self._first_model()

    def close(self) -> None:
        self._http.close()

    def _first_model(self) -> str:
        models = self.models()
        if not models:
            raise ChatError(f"{self.url}/models lists no model; give one with --model")
        return models[0]

    def models(self) -> list[str]:
        with self._explained():
            response = self._http.get(f"{self.url}/models")
            self._raise_for_status(response)
            listed = json.loads(response.content)
            try:
                return [str(model["id"]) for model in listed["data"]]
            except (KeyError, TypeError):
                raise ChatError(f"{self.url}/models is not a list of models") from None

    def choose(self, name: str) -> None:
        names = self.models()
        if names and name not in names:
            raise ChatError(f"there is no model {name!r}; there are {', '.join(names)}")
        self.name = name

    def answer(self, question: Question) -> Iterator[Piece | PromptProgress]:
        body = {
            "model": self.name,
            "messages": [{"role": each.role, "content": each.content or ""} for each in question.messages],
            "stream": True,
            "reasoning_effort": question.effort,
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
        }
        asked = {name: value for name, value in body.items() if value is not None}
        with (
            self._explained(),
            self._http.stream("POST", f"{self.url}/chat/completions", json=asked) as response,
        ):
            self._raise_for_status(response)
            for event in _events(response):
                if isinstance(event, PromptProgress):
                    yield event
                else:
                    yield from _pieces(event)

    def _raise_for_status(self, response: httpx2.Response) -> None:
        if response.is_success:
            return
        response.read()
        message = _error_message(response) or f"{response.status_code} {response.reason_phrase}"
        if response.status_code in (401, 403):
            message += "; set the key with --api-key or OPENAI_API_KEY"
        raise ChatError(f"{self.url}: {message}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException:
            raise ChatError(f"{self.url} does not answer") from None
        except httpx2.HTTPError as error:
            raise ChatError(f"cannot reach {self.url}: {str(error) or type(error).__name__}") from None
        except ValueError:
            raise ChatError(
                f"{self.url} does not answer in JSON; is it an OpenAI-compatible server?"
            ) from None


def _error_message(response: httpx2.Response) -> str | None:
    try:
        message = json.loads(response.content)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return None
    return " ".join(message.split()) if isinstance(message, str) else None


PROGRESS = re.compile(rb": prompt ([0-9]{1,9})/([0-9]{1,9})")
"""A comment of our server: computed and total tokens of the prompt."""


def _events(response: httpx2.Response) -> Iterator[dict[str, Any] | PromptProgress]:
    """The server-sent events up to [DONE].  Each `data:` line is one event; comments are ignored, except
    those about the progress of the prompt.
    """
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if (progress := PROGRESS.fullmatch(line.rstrip(b"\r"))) is not None:
                yield PromptProgress(*map(int, progress.groups()))
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if isinstance(event, dict):
                yield event


def _pieces(event: dict[str, Any]) -> Iterator[Piece]:
    if isinstance(error := event.get("error"), dict):
        raise ChatError(str(error.get("message") or "the server failed in the middle of the answer"))
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        # Servers use one of these names, or both, as ours does.
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            yield Piece("reasoning", thought)
        if content := delta.get("content"):
            yield Piece("content", content)
        if choice.get("finish_reason") == "length":
            yield CUT_OFF
