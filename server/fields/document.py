"""docs/fields.md, made from the table.

python -m server.fields.document > docs/fields.md
"""

from __future__ import annotations

from collections.abc import Iterable

from server.fields.elsewhere import ELSEWHERE_ROWS
from server.fields.extensions import EXTENSION_ROWS
from server.fields.openai import CHAT_ROWS, COMPLETION_ROWS
from server.fields.rows import Row

HEAD = """\
# Every field of a request, and what it does here

The fields of the openai SDK's request types, what this server has beside them, and what clients of vLLM,
SGLang, llama.cpp, Ollama, DeepSeek and OpenRouter send. `null` is the same as absent. What is said of a field
of OpenAI's holds for everything inside it that has no line of its own.

- **honoured**: it does what OpenAI's reference says, or what the note says
- **same as**: it is read as the field that is named; where both are given, ours counts
- **ignored**: it changes nothing; any value is accepted
- **refused**: 400 with `param`, since the answer would not be what was asked for

A field that stands in none of these tables changes nothing either. It is named once in the server's log, and
in the header `x-gptoss-ignored` of the answer, with the nearest name that there is: `max_token (did you mean
max_tokens?)`. `--strict-fields on` makes it a 400.

This page is made from `server/fields/`, which is also what the server reads requests by. Fields of
`/v1/responses` and `/v1/messages` are in [responses](responses.md) and [messages](messages.md); unknown ones
are named there as well.
"""

EXTENSIONS = """\
## Extensions, named as vLLM names them

Of both APIs, unless the note says chat."""

SAME = "## Other names of the same"
IGNORED = "## Fields of other servers that are ignored"
REFUSED = """\
## Fields of other servers that are refused

Values that switch such a thing off (0, 1 where it is a factor, false, an empty list) are accepted."""


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
