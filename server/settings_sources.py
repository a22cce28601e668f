"""Where settings come from: flags, environment variables and a settings file.

A flag overrides the environment variable, the variable the file, and the file the default.  An unknown name
is an error that suggests the most similar known one.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from server import settings_file
from server.setting_kinds import path
from server.settings import PREFIX, Settings, SettingsError, default_text, flag, variable
from server.settings_file import SettingsFileError

CONFIG = "GPTOSS_CONFIG"
"""The variable that names the settings file, like the flag `--config`; not a setting itself."""

OTHER_VARIABLES = {
    "GPTOSS_FAULT": "for tests: make the engine fail at a step, such as `step:10=raise`; also nan, hang, oom",
    "GPTOSS_TOKENIZER": "for tests: the tokenizer.json of the real gpt-oss",
    "GPTOSS_CPU_ISA": "instruction set of the cpu backend: amx, avx512, avx2, neon, portable",
    "GPTOSS_CPU_LIBRARY": "for tests: a library of CPU kernels built by hand, for example with a sanitizer",
}
"""Variables with our prefix that are not settings."""


PRECEDENCE = (
    "A flag overrides the environment variable (--max-queued 64: GPTOSS_MAX_QUEUED=64), "
    "the variable the file (max-queued = 64), and the file the default."
)


class SettingsHelp(argparse.HelpFormatter):
    """`--help` with a short usage line, which has `[settings]` in place of all the settings' flags."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None = None
    ) -> None:
        settings = {each.name for each in fields(Settings)}
        own = [action for action in actions if action.dest not in settings]
        super().add_usage(usage, own, groups, prefix)


def add_flags(parser: argparse.ArgumentParser, only: Iterable[str]) -> None:
    """Add `--config` and a flag for each of the named settings.  Values stay text until `read`."""
    parser.formatter_class = SettingsHelp
    parser.epilog = f"{parser.epilog}  {PRECEDENCE}" if parser.epilog else PRECEDENCE
    parser.add_argument("--config", metavar="FILE", help=f"take settings from a TOML file (also: {CONFIG})")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for each in (each for each in fields(Settings) if each.name in set(only)):
        about = each.metadata
        if about["group"] not in groups:
            groups[about["group"]] = parser.add_argument_group(about["group"])
        groups[about["group"]].add_argument(
            flag(each),
            dest=each.name,
            action="append" if about["many"] else "store",
            metavar=about["kind"].place,
            help=f"{about['meaning']} (default: {default_text(each)})".replace("%", "%%"),
        )


KUBERNETES = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""Matches the part after GPTOSS_ in variables that Kubernetes sets in each container for a Service called
gptoss or gptoss-SOMETHING.  (Another one, GPTOSS_PORT=tcp://10.0.0.1:8000, has the name of our setting; its
value shows that it is not.)
"""


def kubernetes_variables(environ: Mapping[str, str]) -> list[str]:
    """Names of variables with our prefix that Kubernetes has set.  They are ignored."""
    return [
        name
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and (
            KUBERNETES.fullmatch(name.removeprefix(PREFIX))
            or (name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value))
        )
    ]


def read(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings asked for by flags (field name → text), environment and file.  Raises SettingsError."""
    passed_over = set(kubernetes_variables(environ))
    environ = {name: value for name, value in environ.items() if name not in passed_over}
    _refuse_unknown_variables(environ)
    config = _config(flags, environ)
    file = {} if config is None else _from_file(config)
    values: dict[str, Any] = {}
    for each in fields(Settings):
        if (text := flags.get(each.name)) is not None:
            values[each.name] = _value(each, flag(each), text)
        elif (text := environ.get(variable(each))) is not None:
            split = [part for part in text.split(",") if part] if each.metadata["many"] else text
            values[each.name] = _value(each, variable(each), split)
        elif (text := file.get(each.name)) is not None:
            values[each.name] = _value(each, f"{config}: {each.name}", text)
    return Settings(**values)


def _config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    for asked_by, file in ("--config", flags.get("config")), (CONFIG, environ.get(CONFIG)):
        if file is not None:
            try:
                return Path(path("FILE")(file))
            except ValueError as error:
                raise SettingsError(f"{asked_by}: must be {error}") from None
    return None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {CONFIG, *OTHER_VARIABLES, *(variable(each) for each in fields(Settings))}
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name}: there is no such setting; {nearest(name, known)}")


def _from_file(config: Path) -> dict[str, str | list[str]]:
    """The file's settings as text.  Each has to be a field."""
    try:
        settings = settings_file.load(config)
    except SettingsFileError as error:
        raise SettingsError(str(error)) from None
    known = {each.name for each in fields(Settings)}
    for name in settings:
        if name not in known:
            raise SettingsError(f"{config}: there is no setting {name!r}; {nearest(name, known)}")
    return settings


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message about the unknown `name`: the most similar known name, or all of them."""
    return did_you_mean(name, known) or f"known are {', '.join(sorted(known))}"


def did_you_mean(name: str, known: Collection[str]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else None


def _value(field: Field[Any], asked_by: str, text: str | list[str]) -> Any:
    kind, many = field.metadata["kind"], field.metadata["many"]
    try:
        if isinstance(text, str):
            return (kind(text),) if many else kind(text)
        if not many:
            raise ValueError("one value, not a list")
        return tuple(kind(part) for part in text)
    except ValueError as error:
        raise SettingsError(f"{asked_by}: must be {error}") from None
