"""The tools that gpt-oss was trained on, as the system message declares them: a browser and Python.

The server does not run them.  If a client declares functions of these names, and runs them itself, they are
declared to the model as in its training, and called on the channel `analysis`.

The texts are exactly those of openai/harmony, because the model was trained with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from language.harmony.messages import Tool
from language.harmony.typescript import namespace


def _browser(name: str, description: str, required: list[str], **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(f"browser.{name}", description, schema, builtin=True)


_FROM_LAST = {"type": "number", "default": -1}

BROWSER = """\
Tool for browsing.
The `cursor` appears in brackets before each browsing display: `[{cursor}]`.
Cite information from the tool using the following format:
`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.
Do not quote more than 10 words directly from the tool output.
sources=web (default: web)"""

PYTHON = """\
Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. \
This tool should be used for internal reasoning, but not for code that is intended to be visible to the user \
(e.g. when creating plots, tables, or files).

When you send a message containing Python code to python, it will be executed in a stateful Jupyter notebook \
environment. python will respond with the output of the execution or time out after 120.0 seconds. The drive \
at '/mnt/data' can be used to save and persist user files. Internet access for this session is UNKNOWN. \
Depends on the cluster."""

TOOLS = {
    tool.name: tool
    for tool in (
        _browser(
            "search",
            "Searches for information related to `query` and displays `topn` results.",
            ["query"],
            query={"type": "string"},
            topn={"type": "number", "default": 10},
            source={"type": "string"},
        ),
        _browser(
            "open",
            "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing "
            "`num_lines` lines.\n"
            "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
            "If `cursor` is not provided, the most recent page is implied.\n"
            "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
            "If `loc` is not provided, the viewport will be positioned at the beginning of the document or "
            "centered on the most relevant passage, if available.\n"
            "Use this function without `id` to scroll to a new location of an opened page.",
            [],
            id={"type": ["number", "string"], "default": -1},
            cursor=_FROM_LAST,
            loc=_FROM_LAST,
            num_lines=_FROM_LAST,
            view_source={"type": "boolean", "default": False},
            source={"type": "string"},
        ),
        _browser(
            "find",
            "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
            ["pattern"],
            pattern={"type": "string"},
            cursor=_FROM_LAST,
        ),
        Tool("python", PYTHON, text=True, builtin=True),
    )
}
"""Tools by name."""


def builtin_tools(tools: Sequence[Tool]) -> str:
    """The `# Tools` section of the system message: the built-in ones of `tools`; empty if there are none."""
    named = {tool.name for tool in tools if tool.builtin}
    browser = [tool for name, tool in TOOLS.items() if name in named and tool.namespace == "browser"]
    sections = [namespace("browser", BROWSER, browser)] if browser else []
    if "python" in named:
        sections.append(f"## python\n\n{PYTHON}")
    return "\n\n".join(["# Tools", *sections]) if sections else ""
