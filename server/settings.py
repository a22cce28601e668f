"""Every knob of the program, once: its name, default and meaning.

Flags (`--max-queued 64`), environment variables (`GPTOSS_MAX_QUEUED=64`) and the README's table come from the
fields of `Settings`.  A flag beats the environment, the environment the default; an unknown one is an error.

    python -m server.settings       prints the README's table
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

PREFIX = "GPTOSS_"

ELSEWHERE = {
    "GPTOSS_FAULT": "for tests: make the engine fail at a step, as `step:10=raise`, `nan`, `hang` or `oom`",
    "GPTOSS_TOKENIZER": "for tests: the tokenizer.json of the real gpt-oss",
    "GPTOSS_CPU_ISA": "which instructions the cpu backend uses: avx512, avx2, portable",
}
"""Variables with our prefix that are not knobs."""


class SettingsError(Exception):
    """A setting that cannot be used; the message is one line for the person who wrote it."""


# How a value is read from text.  Each raises ValueError with what would have been right.


def whole_number(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low}" + (f" to {high}" if high < 2**63 - 1 else ""))
        return int(text)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return read


seconds = number(0, 1e9)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError("a share, as 0.5: more than 0, at most 1")
    return value


UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if not found or not (value := int(float(found[1]) * UNITS[found[2].upper()])):
        raise ValueError("an amount of memory, as 4GiB or 512MiB")
    return value


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError("one of " + ", ".join(words))
        return text

    return read


def on_or_off(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def words(text: str) -> str:
    if not text.strip():
        raise ValueError("not empty")
    return text


def iso_date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("a date, as 2025-06-28") from None


def path(text: str) -> Path:
    return Path(words(text)).expanduser()


def knob(read: Callable[[str], Any], meaning: str, *, unset: str = "", many: bool = False) -> dict[str, Any]:
    """What there is to say about one setting.

    read   text → value; ValueError says what would have been right
    unset  what happens without it, where the default does not tell
    many   the flag may be repeated, and the variable is a list with commas
    """
    return {"read": read, "meaning": meaning, "unset": unset, "many": many}


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked of the program when it was started; what is found out later is not in here."""

    model: Path | None = field(
        default=None,
        metadata=knob(path, "folder of the checkpoint: config.json, *.safetensors", unset="the bundled demo"),
    )
    served_model_name: str | None = field(
        default=None,
        metadata=knob(words, "the model's name in requests and answers", unset="the folder's name"),
    )
    host: str = field(default="127.0.0.1", metadata=knob(words, "address to listen on; 0.0.0.0 for all"))
    port: int = field(default=8000, metadata=knob(whole_number(0, 65535), "port to listen on; 0: any free"))
    device: str | None = field(
        default=None,
        metadata=knob(
            words, "where the model lives: cpu, cuda, cuda:1", unset="cuda if there is one, else cpu"
        ),
    )
    backend: str | None = field(
        default=None,
        metadata=knob(words, "which kernels compute it: cpu, gpu, reference", unset="the device's own"),
    )
    threads: int | None = field(
        default=None,
        metadata=knob(whole_number(1, 4096), "of the cpu backend, in one step", unset="one for each core"),
    )
    dense: str | None = field(
        default=None,
        metadata=knob(
            one_of("int8", "bf16"), "how the cpu backend keeps all but the experts: int8, bf16", unset="int8"
        ),
    )
    max_context: int | None = field(
        default=None,
        metadata=knob(
            whole_number(16), "longest prompt and answer together, tokens", unset="the checkpoint's"
        ),
    )
    kv_cache_memory: int | None = field(
        default=None,
        metadata=knob(memory, "for keys and values, as 4GiB", unset="planned from what the device has"),
    )
    kv_cache_fraction: float | None = field(
        default=None,
        metadata=knob(
            share,
            "share of what weights and workspace leave that goes to keys and values",
            unset="0.9 of a GPU's memory, 0.5 of a computer's",
        ),
    )
    prefix_cache: bool = field(
        default=True,
        metadata=knob(on_or_off, "reuse keys and values of beginnings that prompts share: on, off"),
    )
    max_running: int = field(default=64, metadata=knob(whole_number(1), "sequences computed in one step"))
    max_queued: int = field(
        default=256, metadata=knob(whole_number(1), "requests that may wait; more are refused with 429")
    )
    max_tokens_per_step: int = field(
        default=512,
        metadata=knob(whole_number(1), "tokens computed in one step, prompts and answers together"),
    )
    recall_memory: int = field(
        default=64 * 2**20,
        metadata=knob(memory, "for chains of thought that led to calls, until the results come, as 64MiB"),
    )
    request_timeout: float = field(
        default=600, metadata=knob(seconds, "seconds a request may take; 0: no limit")
    )
    grace: float = field(
        default=30,
        metadata=knob(seconds, "seconds that running answers get when the server is asked to stop"),
    )
    date: str | None = field(
        default=None,
        metadata=knob(iso_date, "the date the model is told, as 2025-06-28", unset="the day of the start"),
    )
    api_key: tuple[str, ...] = field(
        default=(),
        metadata=knob(words, "a key that clients must send", unset="none: no key needed", many=True),
    )
    api_key_file: Path | None = field(
        default=None, metadata=knob(path, "a file of such keys, one on each line", unset="none")
    )
    cors_origin: tuple[str, ...] = field(
        default=(),
        metadata=knob(words, "a web origin whose pages may call; * for any", unset="none", many=True),
    )
    max_body_bytes: int = field(
        default=8 * 2**20, metadata=knob(memory, "longest request body, as 8MiB; longer: 413")
    )
    log_level: str = field(
        default="info",
        metadata=knob(one_of("debug", "info", "warning", "error"), "debug, info, warning or error"),
    )
    log_format: str = field(
        default="text", metadata=knob(one_of("text", "json"), "text, or json: one object on each line")
    )

    def api_keys(self) -> tuple[str, ...]:
        """All keys that open the door, of the flags and of the file; none means that there is no lock."""
        if self.api_key_file is None:
            return self.api_key
        try:
            lines = self.api_key_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--api-key-file {self.api_key_file}: {_reason(error)}") from None
        found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        if not found:
            raise SettingsError(f"--api-key-file {self.api_key_file}: it has no key in it")
        return self.api_key + found


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "is not UTF-8 text"


def flag(knob: Field[Any]) -> str:
    return "--" + knob.name.replace("_", "-")


def variable(knob: Field[Any]) -> str:
    return PREFIX + knob.name.upper()


def add_flags(parser: argparse.ArgumentParser, only: tuple[str, ...] = ()) -> None:
    """Give `parser` a flag for every knob, or for the named ones.  Values stay text until `read`."""
    for each in fields(Settings):
        if not only or each.name in only:
            parser.add_argument(
                flag(each),
                dest=each.name,
                action="append" if each.metadata["many"] else "store",
                metavar="TEXT" if each.metadata["many"] else each.name.split("_")[-1].upper(),
                help=f"{each.metadata['meaning']} (default: {_default(each)})".replace("%", "%%"),
            )


def read(flags: Mapping[str, str | list[str] | None], environ: Mapping[str, str]) -> Settings:
    """The settings asked for by flags (field name → text) and environment.  Raises SettingsError."""
    known = {variable(each) for each in fields(Settings)} | ELSEWHERE.keys()
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name}: there is no such setting; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for each in fields(Settings):
        if (text := flags.get(each.name)) is not None:
            values[each.name] = _value(each, flag(each), text)
        elif (text := environ.get(variable(each))) is not None:
            split = [part for part in text.split(",") if part] if each.metadata["many"] else text
            values[each.name] = _value(each, variable(each), split)
    return Settings(**values)


def _value(knob: Field[Any], asked_by: str, text: str | list[str]) -> Any:
    parse = knob.metadata["read"]
    try:
        return parse(text) if isinstance(text, str) else tuple(parse(part) for part in text)
    except ValueError as error:
        raise SettingsError(f"{asked_by}: must be {error}") from None


def _default(knob: Field[Any]) -> str:
    if knob.metadata["unset"]:
        return str(knob.metadata["unset"])
    if isinstance(knob.default, bool):
        return "on" if knob.default else "off"
    if isinstance(knob.default, int) and knob.metadata["read"] is memory:
        return f"{knob.default // 2**20}MiB"
    return str(knob.default)


def table() -> str:
    """The README's table, in Markdown."""
    rows = [
        f"| `{flag(each)}` | `{variable(each)}` | {_default(each)} | {each.metadata['meaning']} |"
        for each in fields(Settings)
    ]
    return "\n".join(["| flag | variable | default | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
