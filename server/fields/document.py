"""Generates docs/fields.md from the table.

python -m server.fields.document > docs/fields.md
"""

from __future__ import annotations

from collections.abc import Iterable

from server.fields.elsewhere import ELSEWHERE_ROWS
from server.fields.extensions import EXTENSION_ROWS
from server.fields.openai import CHAT_ROWS, COMPLETION_ROWS
from server.fields.rows import Row

HEAD = """\
# Request fields

These are the fields of the openai SDK's request types, the extensions of this server, and the fields that
clients of vLLM, SGLang, llama.cpp, Ollama, DeepSeek and OpenRouter send. `null` is the same as absent. The
line of an OpenAI field also holds for everything inside it that has no line of its own.

- **honoured**: it does what OpenAI's reference says, or what the note says
- **same as**: it is treated as the field that is named; if both are given, that field's own value counts
- **ignored**: it changes nothing; any value is accepted
- **refused**: 400 with `param`, because the answer would not be what the client asked for

A field that is in none of these tables is ignored too. It is reported once in the server's log, and in the
response header `x-gptoss-ignored`, with the most similar known name: `max_token (did you mean max_tokens?)`.
With `--strict-fields on` such a request is refused with 400.

This page is generated from `server/fields/`, the table that the server itself uses. Fields of `/v1/responses`
and `/v1/messages` are described in [responses](responses.md) and [messages](messages.md); unknown fields are
reported there as well.
"""

EXTENSIONS = """\
## Extensions, named as vLLM names them

They exist in both APIs, unless the note says chat."""

SAME = "## Fields of other servers that have another name here"
IGNORED = "## Fields of other servers that are ignored"
REFUSED = """\
## Fields of other servers that are refused

Values that switch the feature off (0, 1 for a factor, false, an empty list) are accepted."""


def document() -> str:
    of_others = sorted(ELSEWHERE_ROWS, key=lambda row: row.name)
    parts = [
        HEAD,
        "## POST /v1/chat/completions\n",
        _table(CHAT_ROWS),
        "\n## POST /v1/completions\n",
        _table(COMPLETION_ROWS),
        f"\n{EXTENSIONS}\n",
        _table(EXTENSION_ROWS),
    ]
    for title, verdict in ((SAME, "same"), (IGNORED, "ignored"), (REFUSED, "refused")):
        parts += [f"\n{title}\n", _table(row for row in of_others if row.verdict == verdict)]
    return "\n".join(parts) + "\n"


def _table(rows: Iterable[Row]) -> str:
    lines = ["| field | here | note |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{row.name}` | {_here(row)} | {_note(row)}|" for row in rows)])


def _here(row: Row) -> str:
    return f"same as `{row.target}`" if row.verdict == "same" else row.verdict


def _note(row: Row) -> str:
    return f"{row.note} " if row.note else ""


if __name__ == "__main__":
    print(document(), end="")
