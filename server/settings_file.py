"""Settings from a TOML file: `gptoss serve --config gptoss.toml`.

    model = "openai/gpt-oss-20b"
    max-queued = 64                     # the name of the flag; max_queued is the same
    prefix-cache = false
    api-key = ["one key", "another"]

This module only reads the file, and returns text as if from a flag.  server/settings_sources.py parses it.
"""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any


class SettingsFileError(ValueError):
    """A file that cannot be read as settings; the message names the file."""


def load(path: Path) -> dict[str, str | list[str]]:
    """Names, with underscores, and their text; a list where the file has one.  Raises SettingsFileError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsFileError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsFileError(f"{path}: is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsFileError(f"{path}: is not TOML: {error}") from None
    settings: dict[str, str | list[str]] = {}
    for written, value in entries.items():
        name = written.replace("-", "_")
        if name in settings:
            raise SettingsFileError(f"{path}: {written} is set twice")
        try:
            settings[name] = [_text(part) for part in value] if isinstance(value, list) else _text(value)
        except ValueError as error:
            raise SettingsFileError(f"{path}: {written}: {error}") from None
    return settings


def _text(value: Any) -> str:
    """A TOML value as the text that would follow a flag."""
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return value
        case int() | float():
            return str(value)
        case date() if not isinstance(value, datetime):
            return value.isoformat()
        case dict():
            raise ValueError("settings must be at the top of the file, not in a [section]")
    raise ValueError("must be text, a number, a date, true or false")
