"""Tools of a Responses request: as clients declare them, as the prompt has them, and as calls are returned.

| declared as                         | the model sees             | a call comes back as       |
|-------------------------------------|----------------------------|----------------------------|
| function                            | a function                 | function_call              |
| namespace                           | a namespace of functions   | function_call, namespace   |
| custom                              | a function that takes text | custom_tool_call           |
| local_shell, shell, apply_patch     | a function                 | the item of that name      |
| functions browser.* and python,     | what it was trained on     | function_call              |
|   or browser as a namespace         |                            |                            |
| web_search                          | nothing; a warning says so |                            |

The client that declares a tool runs it: the server runs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from language.harmony import builtin
from language.harmony.messages import Call, Grammar, Tool
from language.names import FunctionNames, ToolName
from server.api.responses import actions
from server.api.shared_fields import Body, ManyObjects
from server.dialogue.turn import Demands
from server.errors import bad_request, unsupported

MAX_TOOLS = 1024

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class GrammarFormat(Body):
    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class Skill(Body):
    name: str
    description: str
    path: str


class ShellEnvironment(Body):
    """Where the commands of a shell run."""

    type: str
    skills: ManyObjects[Skill] | None = None


class ToolBody(Body):
    """A tool of any type.  `tools_of` checks which fields its type needs."""

    type: str
    name: Name | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: GrammarFormat | None = None
    environment: ShellEnvironment | str | None = None  # a string only for hosted tools
    tools: ManyObjects[ToolBody] | None = None


class ChosenTool(Body):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: ManyObjects[ChosenTool] | None = None


ToolChoice = Literal["none", "auto", "required"] | ChosenTool

SEARCH = re.compile(r"web_search(_preview)?(_[0-9]{4}_[0-9]{2}_[0-9]{2})?")
"""The types of searches, which are ignored.  They are short, because a header and the log repeat them."""

INSTEAD = {
    "file_search": "declare a function that searches your files",
    "code_interpreter": "declare a function called python that runs code, and run it yourself",
    "image_generation": "this model writes text only",
    "computer": "declare functions for what the computer can do",
    "computer_use_preview": "declare functions for what the computer can do",
    "mcp": "connect to the MCP server yourself, and declare its tools as functions",
    "tool_search": "declare all tools",
    "programmatic_tool_calling": "the model calls tools one by one; leave it out",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """
    name    the client's name for it
    tool    as the prompt declares it
    item    the type of item that a call of it is returned as
    wrap    for a Python function: the one property that holds the code
    strict  True: an unsupported keyword of the schema is an error; None: it is ignored; False: arguments need
            not follow the schema
    path    the field of the request
    """

    name: ToolName
    tool: Tool
    item: Literal["function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"]
    wrap: str | None
    strict: bool | None
    path: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request.

    namespaces  the name in the prompt → its description
    ignored     types of tools that are not in the prompt
    """

    declared: dict[ToolName, Declared]
    names: FunctionNames
    namespaces: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def prompt_tools(self) -> list[Tool]:
        return [each.tool for each in self.declared.values()]

    def find(self, name: str, namespace: str | None = None) -> Declared | None:
        return self.declared.get(ToolName(name, namespace))

    def call(self, id: str, name: str, namespace: str | None, arguments: str, text: bool = False) -> Call:
        """A call of the history, for the prompt."""
        known = self.find(name, namespace)
        if known is None and namespace is None:  # the client has lost the namespace
            same = [each for each in self.declared.values() if each.name.name == name]
            known = same[0] if len(same) == 1 else None
        if known is None:
            return Call(id, self.names.to_model(name, namespace), arguments, text)
        if known.wrap is not None:
            arguments = actions.unwrapped(arguments, known.wrap)
        return Call(id, known.tool.name, arguments, bool(known.tool.text), known.tool.builtin)


def tools_of(bodies: Sequence[ToolBody]) -> Tools:
    """Raises ApiError."""
    flat = list(_flat(bodies))
    if len(flat) > MAX_TOOLS:
        raise bad_request(f"tools: there are {len(flat)}; at most {MAX_TOOLS} can be declared", "tools")
    spaces = {body.name: body.description or "" for body in bodies if body.type == "namespace" and body.name}
    trained = {_whole(body, space) for body, space, _ in flat if _is_trained(body, space)}
    names = FunctionNames((ToolName(_name(body, path), space) for body, space, path in flat), trained)
    declared: dict[ToolName, Declared] = {}
    for body, space, path in flat:
        each = _declared(body, space, path, names)
        if each.name in declared:
            raise bad_request(f"{path}.name: there is another tool called {each.name.name!r}", f"{path}.name")
        declared[each.name] = each
    descriptions = {
        names.namespace(name): description
        for name, description in spaces.items()
        if description
        and not all(each.tool.builtin for each in declared.values() if each.name.namespace == name)
    }
    ignored = dict.fromkeys(body.type for body in bodies if SEARCH.fullmatch(body.type))
    return Tools(declared, names, descriptions, tuple(ignored))


def _flat(bodies: Sequence[ToolBody]) -> Iterator[tuple[ToolBody, str | None, str]]:
    """Each tool for the prompt, its namespace, and its path."""
    for i, body in enumerate(bodies):
        path = f"tools[{i}]"
        if body.type == "namespace":
            if not body.name:
                raise bad_request(f"{path}.name: a namespace needs one", f"{path}.name")
            for k, inner in enumerate(body.tools or ()):
                if inner.type not in ("function", "custom"):
                    raise unsupported(
                        f"{path}.tools[{k}].type: a namespace may have only function and custom tools",
                        f"{path}.tools[{k}].type",
                    )
                yield inner, body.name, f"{path}.tools[{k}]"
        elif body.type in ("function", "custom", *actions.TOOLS):
            _check_environment(body, path)
            yield body, None, path
        elif not SEARCH.fullmatch(body.type):
            base = next((name for name in INSTEAD if body.type.startswith(name)), "")
            instead = INSTEAD.get(base, "use function, custom, namespace, local_shell, shell or apply_patch")
            what = "runs on OpenAI's servers, not here" if base else "is not a type of tool"
            raise unsupported(f"{path}.type: {body.type[:100]!r} {what}; {instead}", f"{path}.type")


def _name(body: ToolBody, path: str) -> str:
    if body.type in actions.TOOLS:
        return body.type
    if not body.name:
        raise bad_request(f"{path}.name: a {body.type} tool needs one", f"{path}.name")
    return body.name


def _whole(body: ToolBody, space: str | None) -> str:
    """The name with its namespace: `search` in `browser` is the same as `browser.search`."""
    return f"{space}.{body.name}" if space else str(body.name)


def _is_trained(body: ToolBody, space: str | None) -> bool:
    """Whether the model was trained on this tool.  Then it is declared exactly as in the training.

    Python takes its code as text, so the client's function must have exactly one property, a string.
    """
    name = _whole(body, space)
    if name == "python":
        return body.type == "custom" or _only_string(body.parameters) is not None
    return body.type == "function" and name in builtin.TOOLS


def _only_string(parameters: Mapping[str, Any] | None) -> str | None:
    properties = (parameters or {}).get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        return None
    ((name, schema),) = properties.items()
    return name if isinstance(schema, dict) and schema.get("type") == "string" else None


def _declared(body: ToolBody, space: str | None, path: str, names: FunctionNames) -> Declared:
    name = ToolName(_name(body, path), space)
    inside = names.to_model(name.name, space)
    if _is_trained(body, space):
        whole = _whole(body, space)
        python = whole == "python"
        wrap = _only_string(body.parameters) if python and body.type == "function" else None
        item: Any = "custom_tool_call" if body.type == "custom" else "function_call"
        return Declared(name, builtin.TOOLS[whole], item, wrap, False, path)
    if body.type in actions.TOOLS:
        return Declared(
            name,
            actions.tool(body.type, inside, _action_description(body)),
            actions.ITEMS[body.type],
            None,
            True,
            path,
        )
    if body.type == "custom":
        return Declared(
            name,
            Tool(inside, body.description, text=_text(body, path)),
            "custom_tool_call",
            None,
            None,
            path,
        )
    return Declared(
        name,
        Tool(inside, body.description, body.parameters),
        "function_call",
        None,
        body.strict,
        path,
    )


def _check_environment(body: ToolBody, path: str) -> None:
    """Raises ApiError if a shell's commands should run in a container."""
    asked = body.environment
    if (
        body.type != "shell"
        or asked is None
        or (isinstance(asked, ShellEnvironment) and asked.type == "local")
    ):
        return
    where = f"{path}.environment"
    message = f"{where}: containers are on OpenAI's servers, not here"
    raise unsupported(f"{message}; use the type 'local', and run the commands yourself", where)


def _action_description(body: ToolBody) -> str:
    """The description of a tool that the client runs, with the skills of a shell's environment."""
    lines = [body.description or actions.DESCRIPTIONS[body.type]]
    if body.type == "shell" and isinstance(body.environment, ShellEnvironment) and body.environment.skills:
        lines.append("Skills: folders whose SKILL.md says how to do something.  Read it before you do it.")
        lines += [f"- {each.name} ({each.path}): {each.description}" for each in body.environment.skills]
    return "\n".join(lines)


def _text(body: ToolBody, path: str) -> bool | Grammar:
    asked = body.format
    if asked is None or asked.type == "text":
        return True
    if asked.syntax is None or asked.definition is None:
        raise bad_request(f"{path}.format: a grammar needs a syntax and a definition", f"{path}.format")
    return Grammar(asked.syntax, asked.definition)


def demands_of(choice: ToolChoice | None, tools: Tools) -> Demands:
    """The demands of `tool_choice`, and of the tools' `strict`.

    Raises ApiError.
    """
    strict = frozenset(each.tool.name for each in tools.declared.values() if each.strict)
    loose = frozenset(each.tool.name for each in tools.declared.values() if each.strict is False)
    mode, allowed = _chosen(choice, tools)
    return Demands(tool_choice=mode, allowed_tools=allowed, strict_tools=strict, loose_tools=loose)


def _chosen(
    choice: ToolChoice | None, tools: Tools
) -> tuple[Literal["none", "auto", "required"], frozenset[str] | None]:
    match choice:
        case None | "auto":
            return "auto", None
        case "none":
            return "none", None
        case "required":
            if not tools.declared:
                raise bad_request("tool_choice: there is no tool to choose from", "tool_choice")
            return "required", None
        case ChosenTool(type="allowed_tools", mode=mode, tools=chosen):
            allowed = frozenset(
                _find(each, tools, f"tool_choice.tools[{i}]")
                for i, each in enumerate(chosen or ())
                if not SEARCH.fullmatch(each.type)
            )
            if not allowed:
                raise bad_request("tool_choice.tools: there is no tool to choose from", "tool_choice.tools")
            return mode or "auto", allowed
        case ChosenTool():
            return "required", frozenset({_find(choice, tools, "tool_choice")})


def _find(chosen: ChosenTool, tools: Tools, path: str) -> str:
    if chosen.type not in ("function", "custom", *actions.TOOLS):
        raise unsupported(f"{path}.type: this server has no {chosen.type[:100]!r} to call", f"{path}.type")
    name = chosen.type if chosen.type in actions.TOOLS else chosen.name or ""
    found = tools.find(name, chosen.namespace)
    if found is None and chosen.namespace is None:
        found = next((each for each in tools.declared.values() if each.name.name == name), None)
    if found is None:
        raise bad_request(f"{path}.name: there is no tool {name[:100]!r} in tools", f"{path}.name")
    return found.tool.name
