"""`gptoss launch AGENT`: starts a coding agent with this server, without any configuration.

    agents.py    the agents, and how each is configured
    server.py    the server: a running one, or one that is started for the agent
    run.py       the agent's process: signals and exit code

Agents are configured with environment variables of their process, and with files in a folder of ours.  The
user's own configuration is neither read nor changed.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from gptoss.launch.agents import AGENTS, Launch, Model
from gptoss.launch.run import find, run, write
from gptoss.launch.server import Server, running, started
from server.settings import Settings


def launch(settings: Settings, asked: argparse.Namespace, serve: list[str]) -> int:
    """Run the agent until it ends, and return its exit code.  Raises StartError.

    serve  flags for `gptoss serve`, if a server must be started
    """
    agent = AGENTS[asked.agent]
    program = asked.agent if asked.print else find(agent)
    with _server(settings, asked, serve) as server:
        plan = agent.plan(server.url, server.key, server.model, own_folder(agent.name))
        if asked.print:
            print(described(plan, asked.arguments))
            return 0
        write(plan)
        return run(program, plan, asked.arguments)


def own_folder(name: str) -> Path:
    """The agent's configuration folder; its sessions are kept there from one launch to the next."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "gptoss" / "launch" / name


def described(plan: Launch, arguments: list[str]) -> str:
    """What would be done, as shell commands."""
    lines = [f"# {note}" for note in plan.notes]
    for path, text in plan.files.items():
        lines.append(f"mkdir -p {shlex.quote(str(path.parent))}")
        lines.append(f"cat > {shlex.quote(str(path))} <<'END'\n{text}\nEND")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    lines.append(shlex.join([plan.program, *plan.arguments, *arguments]))
    return "\n".join(lines)


def _server(settings: Settings, asked: argparse.Namespace, serve: list[str]) -> Server:
    key = asked.key or next(iter(settings.api_keys()), None)
    if asked.url is not None:
        return running(asked.url, key)
    if asked.print:  # nothing is started
        model = Model(str(settings.model or "gptoss-demo"), settings.max_context or 131_072)
        return Server(f"http://{settings.host}:{settings.port}", key, model)
    return started(serve, key)
