"""`gptoss launch AGENT`: a coding agent on this server, with nothing to configure.

    agents.py    which agents there are, and how each is told of a server
    server.py    the server that it talks to: one that runs, or one that is started for it
    run.py       the agent's process: its signals, its exit code

Each agent is told by variables of its own process, and by files in a folder of ours.  No configuration of the
user's is read or written.
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

KEY = "GPTOSS_API_KEY"
"""The variable that a key for the server may be in, as for `gptoss serve`."""


def launch(settings: Settings, asked: argparse.Namespace, serve: list[str]) -> int:
    """Run the agent to its end; its exit code.  Raises StartError.

    serve  flags for `gptoss serve`, if a server has to be started
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
    """Where an agent keeps what it would keep in the user's configuration: its sessions outlive a launch."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "gptoss" / "launch" / name


def described(plan: Launch, arguments: list[str]) -> str:
    """What would be done, as lines that a shell could run."""
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
    if asked.print:  # nothing is started to say what would be
        model = Model(str(settings.model or "gptoss-demo"), settings.max_context or 131_072)
        return Server(f"http://{settings.host}:{settings.port}", key, model)
    return started(serve, key)
