"""Commands and settings with which programs can use this server, ready to copy.

`{origin}` stands for the server's URL, which the page inserts, because behind a proxy the server does not
know it.  They never contain an API key.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def snippets(model: str, max_context: int, needs_key: bool, paths: Collection[str]) -> list[dict[str, Any]]:
    """
    paths    of the server's endpoints
    returns  for each program its name; `parts`, each a place and a text; and `needs`, the path that this
             server lacks for it, or None
    """
    return [
        {"name": name, "needs": None if path in paths else path, "parts": parts}
        for name, path, parts in _all(json.dumps(model, ensure_ascii=False), max_context, needs_key)
    ]


def _all(model: str, max_context: int, needs_key: bool) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """model  in quotes"""
    key = "YOUR_KEY" if needs_key else "none"
    claude = CLAUDE.replace("{context}", str(max_context))
    return [
        ("curl", CHAT, [("shell", _curl(model, needs_key))]),
        ("Python", CHAT, [("pip install openai", PYTHON.replace("{key}", key).replace("{model}", model))]),
        (
            "JavaScript",
            CHAT,
            [("npm install openai", JAVASCRIPT.replace("{key}", key).replace("{model}", model))],
        ),
        ("Codex", RESPONSES, _codex(model, needs_key)),
        ("Claude Code", MESSAGES, [("shell", claude.replace("{key}", key).replace("{model}", model))]),
    ]


def _curl(model: str, needs_key: bool) -> str:
    key = " -H 'authorization: Bearer YOUR_KEY'" if needs_key else ""
    quoted = model.replace("'", "'\\''")
    return (
        f"curl {{origin}}{CHAT}{key} -H 'content-type: application/json' -d '{{\n"
        f'    "model": {quoted},\n    "messages": [{{"role": "user", "content": "Hello"}}]}}\''
    )


PYTHON = """from openai import OpenAI

client = OpenAI(base_url="{origin}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model={model},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)"""

JAVASCRIPT = """import OpenAI from "openai";

const client = new OpenAI({ baseURL: "{origin}/v1", apiKey: "{key}" });
const answer = await client.chat.completions.create({
    model: {model},
    messages: [{ role: "user", content: "Hello" }],
});
console.log(answer.choices[0].message.content);"""

CLAUDE = """ANTHROPIC_BASE_URL={origin} ANTHROPIC_AUTH_TOKEN={key} ANTHROPIC_API_KEY= \\
    CLAUDE_CODE_ATTRIBUTION_HEADER=0 CLAUDE_CODE_AUTO_COMPACT_WINDOW={context} claude --model {model}"""


def _codex(model: str, needs_key: bool) -> list[tuple[str, str]]:
    settings = (
        f'model = {model}\nmodel_provider = "gptoss"\n\n[model_providers.gptoss]\nname = "gptoss"\n'
        'base_url = "{origin}/v1"\nwire_api = "responses"'
    )
    if not needs_key:
        return [("~/.codex/config.toml", settings), ("shell", "codex")]
    return [("~/.codex/config.toml", f'{settings}\nenv_key = "OUR_KEY"'), ("shell", "OUR_KEY=YOUR_KEY codex")]
