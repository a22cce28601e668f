"""The agents, and how each is configured for a server: arguments, environment variables, files.

What the agents read was determined with Codex 0.171, Claude Code 2.1, opencode 1.18 and pi 0.73.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NO_KEY = "no-key"
"""The key that an agent sends if the server needs none: most agents refuse to start without a key."""

ANSWER_SHARE = 4
"""An agent shortens a conversation when only a quarter of the context is left."""

SMALL = 16_384
"""Tokens of context; with less, an agent is of little use, because its first prompt has thousands."""


@dataclass(frozen=True, slots=True)
class Model:
    """name: in requests; context: maximum tokens of prompt and answer together."""

    name: str
    context: int

    @property
    def full(self) -> int:
        """Tokens of a conversation from which the agent should shorten it."""
        return self.context - self.context // ANSWER_SHARE


@dataclass(frozen=True, slots=True)
class Launch:
    """How an agent is started.

    arguments    come before those of the user
    environment  is added to ours
    files        are written first, all in the agent's own folder
    notes        are shown to the user
    """

    program: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """
    package  name on npm
    plan     (URL of the server, key or None, model, folder of its own) → Launch
    """

    name: str
    package: str
    plan: Callable[[str, str | None, Model, Path], Launch]


CODEX_PROMPT = """\
You are a coding agent in the user's terminal, working in the current folder.

- Look before you change: read the files that matter with shell commands, briefly (rg, sed -n, ls).
- Change files with apply_patch. Keep changes small, and in the style of the code around them.
- Run the tests or the program after a change, and mend what fails.
- Go on until the task is done, then say in a few plain sentences what you did and what you found.
- Never touch files outside the folder, and never undo changes that are not yours, unless asked to.
"""


def codex(url: str, key: str | None, model: Model, folder: Path) -> Launch:
    """Codex uses the Responses API.  A catalogue describes the model; without one Codex assumes another
    model's tools, and sends a prompt of 7,500 tokens.
    """
    efforts = [{"effort": effort, "description": effort} for effort in ("low", "medium", "high")]
    catalogue = {
        "slug": model.name,
        "display_name": model.name,
        "context_window": model.context,
        "shell_type": "default",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 0,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "input_modalities": ["text"],
        "base_instructions": CODEX_PROMPT,
        "support_verbosity": False,
        "default_verbosity": None,
        "supports_parallel_tool_calls": False,
        "supports_reasoning_summaries": True,
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": efforts,
        "apply_patch_tool_type": "freeform",
        "experimental_supported_tools": [],
    }
    settings = {
        "model": model.name,
        "model_provider": "gptoss",
        "model_catalog_json": str(folder / "models.json"),
        "model_context_window": model.context,
        "model_auto_compact_token_limit": model.full,
        "model_reasoning_effort": "medium",
        "model_reasoning_summary": "auto",  # what Codex shows of the chain of thought
        "web_search": "disabled",
        "check_for_update_on_startup": False,
    }
    provider = {
        "name": "gptoss",
        "base_url": f"{url}/v1",
        "wire_api": "responses",
        "env_key": "LOCAL_SERVER_KEY",
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    lines += [
        "",
        "[model_providers.gptoss]",
        *(f"{name} = {json.dumps(text)}" for name, text in provider.items()),
    ]
    lines += ["", "[agents]", "enabled = false", "", "[features]", "goals = false", ""]
    return Launch(
        program="codex",
        environment={"CODEX_HOME": str(folder), "LOCAL_SERVER_KEY": key or NO_KEY},
        files={
            folder / "config.toml": "\n".join(lines),
            folder / "models.json": json.dumps({"models": [catalogue]}, indent=2),
        },
        notes=_about(model),
    )


CLAUDE_WITHOUT = (
    "Workflow", "WebSearch", "ReportFindings", "ScheduleWakeup", "CronCreate", "CronDelete", "CronList",
    "EnterWorktree", "ExitWorktree", "SendMessage",
)  # fmt: skip
"""Tools of Claude Code that are disabled: their descriptions make up half of its first prompt, and WebSearch
needs a tool that Anthropic runs.
"""


def claude(url: str, key: str | None, model: Model, folder: Path) -> Launch:
    """Claude Code uses the Messages API.  Its first prompt has 7,500 tokens; with all its tools, 16,000."""
    names = [f"ANTHROPIC_DEFAULT_{size}_MODEL" for size in ("OPUS", "SONNET", "HAIKU")]
    names += ["ANTHROPIC_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"]
    return Launch(
        program="claude",
        arguments=(f"--disallowedTools={','.join(CLAUDE_WITHOUT)}",),
        environment={
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": key or NO_KEY,
            "ANTHROPIC_API_KEY": "",
            **dict.fromkeys(names, model.name),
            "CLAUDE_CONFIG_DIR": str(folder),
            "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(model.full),
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # it would change the prompt of each request
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "600000",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        notes=_about(model),
    )


def opencode(url: str, key: str | None, model: Model, folder: Path) -> Launch:
    """opencode uses chat completions, and sends the chain of thought back."""
    config = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "model": f"gptoss/{model.name}",
        "small_model": f"gptoss/{model.name}",
        "provider": {
            "gptoss": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "gptoss",
                "options": {"baseURL": f"{url}/v1", "apiKey": key or NO_KEY},
                "models": {
                    model.name: {
                        "name": model.name,
                        "reasoning": True,
                        "tool_call": True,
                        "limit": {"context": model.context, "output": model.context // ANSWER_SHARE},
                    }
                },
            }
        },
    }
    return Launch(
        program="opencode",
        environment={
            "OPENCODE_CONFIG": str(folder / "opencode.json"),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        },
        files={folder / "opencode.json": json.dumps(config, indent=2)},
        notes=_about(model),
    )


def pi(url: str, key: str | None, model: Model, folder: Path) -> Launch:
    """pi uses chat completions."""
    about = {
        "id": model.name,
        "name": model.name,
        "reasoning": True,
        "input": ["text"],
        "contextWindow": model.context,
        "maxTokens": model.context // ANSWER_SHARE,
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
    }
    provider = {
        "baseUrl": f"{url}/v1",
        "api": "openai-completions",
        "apiKey": key or NO_KEY,
        "models": [about],
    }
    return Launch(
        program="pi",
        arguments=("--provider", "gptoss", "--model", model.name),
        environment={"PI_CODING_AGENT_DIR": str(folder), "PI_SKIP_VERSION_CHECK": "1"},
        files={folder / "models.json": json.dumps({"providers": {"gptoss": provider}}, indent=2)},
        notes=_about(model),
    )


def _about(model: Model) -> tuple[str, ...]:
    if model.context >= SMALL:
        return ()
    too_short = f"{model.name} has a context of {model.context} tokens, which is too short for an agent"
    return (f"{too_short}: it needs {SMALL} or more",)


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("codex", "@openai/codex", codex),
        Agent("claude", "@anthropic-ai/claude-code", claude),
        Agent("opencode", "opencode-ai", opencode),
        Agent("pi", "@mariozechner/pi-coding-agent", pi),
    )
}
