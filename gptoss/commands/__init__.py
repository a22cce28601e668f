"""The sub-commands of `gptoss`, one module each: its flags, and what it runs.

These modules import the code that does the work only when a command runs, so that `gptoss --help` is quick.
To add a command: a module with a `COMMAND`, and its entry in `gptoss/__main__.py: COMMANDS`.
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
    "tensor_parallel",
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
"""The settings that have an effect without a server."""


def no_flags(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command.

    meaning    one line for `gptoss --help`
    run        does the work and returns the exit code; may raise SettingsError, StartError and EngineError,
               which are printed on one line, with exit code 2
    settings   the settings that are flags of this command
    add_flags  adds the command's own flags to the parser
    """

    name: str
    meaning: str
    run: Callable[[Settings, argparse.Namespace], int]
    settings: tuple[str, ...] = ()
    add_flags: Callable[[argparse.ArgumentParser], None] = no_flags


def checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read` for argparse, which shows only the messages of its own exception."""

    def value(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from None

    return value


def refuse_with_url(asked: argparse.Namespace, settings: Iterable[str], meant: Collection[str]) -> None:
    """Raises SettingsError if a setting was given that has no effect with --url."""
    for name in settings:
        if name not in meant and getattr(asked, name) is not None:
            flag = name.replace("_", "-")
            raise SettingsError(f"--{flag} has no effect with --url: the server there has its own")
