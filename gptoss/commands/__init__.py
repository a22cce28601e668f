"""The sub-commands of `gptoss`, one module each: its flags, and what it runs.

A module here is light, so that `gptoss --help` answers at once: it describes the command in a `Command`, and
imports what does the work only inside the function that runs it.  To add one: a module with a `COMMAND`, and
its name in `gptoss/__main__.py: COMMANDS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any

from server.settings import Settings, SettingsError

EVERY_SETTING = tuple(each.name for each in fields(Settings))

MODEL_SETTINGS = (
    "model",
    "device",
    "backend",
    "threads",
    "dense",
    "prompt_activations",
    "batch_invariant",
    "kv_cache_dtype",
    "max_context",
    "kv_cache_memory",
    "kv_cache_fraction",
    "prefix_cache_dir",
    "prefix_cache_disk",
    "max_tokens_per_step",
    "date",
    "thinking_budget",
    "log_level",
    "log_format",
)
"""Those that mean something without a server."""


def no_flags(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command.

    meaning    one line for `gptoss --help`
    run        what it does, and its exit code; may raise SettingsError, StartError and EngineError, each told
               in one line with exit code 2
    settings   the fields of server/settings.py that are flags of this command
    add_flags  gives the parser those flags that are the command's own
    """

    name: str
    meaning: str
    run: Callable[[Settings, argparse.Namespace], int]
    settings: tuple[str, ...] = ()
    add_flags: Callable[[argparse.ArgumentParser], None] = no_flags


def checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read` of server/settings.py for argparse, which shows the message of its own exception only."""

    def value(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from None

    return value


def refuse_with_url(asked: argparse.Namespace, settings: Iterable[str], meant: Collection[str]) -> None:
    """Raises SettingsError if a setting was given that means nothing where the model is at a URL."""
    for name in settings:
        if name not in meant and getattr(asked, name) is not None:
            flag = name.replace("_", "-")
            raise SettingsError(f"--{flag} has no effect with --url: the server there has its own")
