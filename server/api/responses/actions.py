"""Calls that have items of their own: shells and patches, which the client runs, and Python code in a
function.

The model sees these tools as functions.  This module converts the arguments of their calls to the items that
clients expect, and back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from language.harmony.messages import Tool
from server.sse import dumps

TOOLS = ("local_shell", "shell", "apply_patch")

ITEMS: dict[str, Literal["local_shell_call", "shell_call", "apply_patch_call"]] = {
    "local_shell": "local_shell_call",
    "shell": "shell_call",
    "apply_patch": "apply_patch_call",
}

_STRINGS = {"type": "array", "items": {"type": "string"}}
_COUNT = {"type": "integer"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


DESCRIPTIONS = {
    "local_shell": "Runs a command on the user's computer.",
    "shell": "Runs commands in a shell on the user's computer, each in a shell of its own.",
    "apply_patch": (
        "Creates, updates or deletes one file.  The diff is in the V4A format: lines that begin with a "
        "space, + or -, under @@ lines that say where; for a new file, every line begins with +."
    ),
}
"""Descriptions of tools for which the client gives none."""

_PARAMETERS: dict[str, dict[str, Any]] = {
    "local_shell": _object(
        ["command"], command=_STRINGS, working_directory={"type": "string"}, timeout_ms=_COUNT
    ),
    "shell": _object(["commands"], commands=_STRINGS, timeout_ms=_COUNT, max_output_length=_COUNT),
    "apply_patch": _object(
        ["type", "path"],
        type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
        path={"type": "string"},
        diff={"type": "string"},
    ),
}


def tool(kind: str, name: str, description: str) -> Tool:
    """The function that stands for one of TOOLS in the prompt."""
    return Tool(name, description, _PARAMETERS[kind])


def fields(item: str, arguments: str) -> dict[str, Any]:
    """The fields of a call's item, from the model's arguments, which may be incomplete."""
    asked = _object_of(arguments)
    if item == "local_shell_call":
        return {
            "action": {
                "type": "exec",
                "command": _strings(asked.get("command")),
                "env": {},
                "timeout_ms": _count(asked.get("timeout_ms")),
                "working_directory": _string(asked.get("working_directory")),
                "user": None,
            }
        }
    if item == "shell_call":
        return {
            "action": {
                "commands": _strings(asked.get("commands")),
                "timeout_ms": _count(asked.get("timeout_ms")),
                "max_output_length": _count(asked.get("max_output_length")),
            },
            "environment": None,
        }
    kind = asked.get("type")
    operation = {
        "type": kind if kind in ("create_file", "update_file", "delete_file") else "update_file",
        "path": _string(asked.get("path")) or "",
    }
    if operation["type"] != "delete_file":
        operation["diff"] = _string(asked.get("diff")) or ""
    return {"operation": operation}


def arguments(item: Mapping[str, Any]) -> str:
    """The arguments of a call, made from its item.  Used if the model's own are not stored."""
    if item["type"] == "apply_patch_call":
        given = item.get("operation")
    else:
        given = item.get("action")
    known = _PARAMETERS[str(item["type"]).removesuffix("_call")]["properties"]
    action = given if isinstance(given, dict) else {}
    return dumps({key: action[key] for key in known if action.get(key) is not None})


def output(item: Mapping[str, Any]) -> str:
    """The result of a call, as text for the prompt."""
    result = item.get("output")
    if isinstance(result, str):
        return result
    if not result:
        return str(item.get("status") or "")
    if item["type"] != "shell_call_output" or not isinstance(result, list):
        return dumps(result)
    texts = []
    for each in result:
        each = each if isinstance(each, dict) else {}
        outcome = each.get("outcome") if isinstance(each.get("outcome"), dict) else {}
        code = outcome.get("exit_code") if outcome else None
        end = "timed out" if outcome and outcome.get("type") == "timeout" else f"exit code {code}"
        texts.append(f"{each.get('stdout') or ''}{each.get('stderr') or ''}[{end}]")
    return "\n".join(texts)


def unwrapped(arguments: str, property: str) -> str:
    """The only string in a function's arguments; other arguments are returned unchanged."""
    value = _object_of(arguments).get(property)
    return value if isinstance(value, str) else arguments


def escaped(text: str) -> str:
    """A piece of text, escaped for a JSON string."""
    return dumps(text)[1:-1]


def opening(property: str) -> str:
    return f'{{{dumps(property)}:"'


CLOSING = '"}'


def _object_of(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
