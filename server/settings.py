"""Every knob of the program, once: its name, default and meaning.

Flags (`--max-queued 64`), environment variables (`GPTOSS_MAX_QUEUED=64`), the names in a settings file
(`max-queued = 64`) and the README's table come from the fields of `Settings`.  A flag beats the environment,
the environment the file, the file the default; an unknown name is an error, which names the nearest.

    python -m server.settings       prints the README's table
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from server import settings_file
from server.dialogue.seal import process_secret, secret_of
from server.settings_file import SettingsFileError
from server.values import (
    Kind,
    iso_date,
    memory,
    on_or_off,
    one_of,
    one_of_numbers,
    path,
    seconds,
    share,
    text,
    whole_number,
)

PREFIX = "GPTOSS_"

CONFIG = "GPTOSS_CONFIG"
"""Names the settings file, as `--config` does: where settings come from, and none itself."""

ELSEWHERE = {
    "GPTOSS_FAULT": "for tests: make the engine fail at a step, as `step:10=raise`, `nan`, `hang` or `oom`",
    "GPTOSS_TOKENIZER": "for tests: the tokenizer.json of the real gpt-oss",
    "GPTOSS_CPU_ISA": "which instructions the cpu backend uses: amx, avx512, avx2, neon, portable",
    "GPTOSS_CPU_LIBRARY": "for tests: a library of CPU kernels built by hand, as with a sanitizer",
}
"""Variables with our prefix that are not knobs."""


class SettingsError(Exception):
    """A setting that cannot be used; the message is one line for the person who wrote it."""


def knob(group: str, kind: Kind, meaning: str, *, unset: str = "", many: bool = False) -> dict[str, Any]:
    """What there is to say about one setting.

    group  the heading that it stands under in `--help`
    kind   of its value
    unset  what happens without it, where the default does not tell
    many   the flag may be repeated, the variable is a list with commas, and the file has a list
    """
    return {"group": group, "kind": kind, "meaning": meaning, "unset": unset, "many": many}


MODEL, ADDRESS, DEVICE, MEMORY = "the model", "the address", "the device", "memory and context"
LOAD, TIME, CALLERS, LOGS = "how much at once", "time", "who may call", "logs"


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked of the program when it was started; what is found out later is not in here."""

    model: Path | None = field(
        default=None,
        metadata=knob(
            MODEL,
            path("MODEL"),
            "the checkpoint: a folder, or a name on the Hugging Face hub such as openai/gpt-oss-20b",
            unset="the bundled demo",
        ),
    )
    served_model_name: str | None = field(
        default=None,
        metadata=knob(
            MODEL,
            text("NAME"),
            "the model's name in requests and answers",
            unset="the folder's, or the hub's",
        ),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=knob(ADDRESS, text("ADDRESS"), "address to listen on; 0.0.0.0 for all"),
    )
    port: int = field(
        default=8000,
        metadata=knob(ADDRESS, whole_number(0, 65535), "port to listen on; 0: any free"),
    )
    device: str | None = field(
        default=None,
        metadata=knob(
            DEVICE,
            text("DEVICE"),
            "where the model lives: cpu, cuda, cuda:1",
            unset="cuda if there is one, else cpu",
        ),
    )
    backend: str | None = field(
        default=None,
        metadata=knob(
            DEVICE,
            text("BACKEND"),
            "which implementation computes the model: cpu, triton, or reference (slow, for comparison)",
            unset="the device's own",
        ),
    )
    threads: int | None = field(
        default=None,
        metadata=knob(
            DEVICE,
            whole_number(1, 4096),
            "threads of the cpu backend; fewer leave cores for other programs",
            unset="one for each core",
        ),
    )
    dense: str | None = field(
        default=None,
        metadata=knob(
            DEVICE,
            one_of("int8", "bf16"),
            "format of the attention and unembedding weights; int8 is smaller and faster: int8, bf16",
            unset="int8 by the cpu backend, bf16 by others",
        ),
    )
    prompt_activations: int | None = field(
        default=None,
        metadata=knob(
            DEVICE,
            one_of_numbers(16, 8),
            "bits of activations while the cpu backend computes prompts; 8 is faster, less exact: 16, 8",
            unset="16",
        ),
    )
    batch_invariant: bool = field(
        default=False,
        metadata=knob(
            DEVICE,
            on_or_off,
            "output is bit-identical whatever else is in the batch (slower on GPUs): on, off",
        ),
    )
    kv_cache_dtype: str | None = field(
        default=None,
        metadata=knob(
            MEMORY,
            one_of("bf16", "fp8"),
            "format of the KV cache of full-attention layers on GPUs; fp8 halves its memory: bf16, fp8",
            unset="bf16",
        ),
    )
    max_context: int | None = field(
        default=None,
        metadata=knob(
            MEMORY,
            whole_number(16),
            "longest prompt and answer together, in tokens; less needs less memory",
            unset="the checkpoint's",
        ),
    )
    kv_cache_memory: int | None = field(
        default=None,
        metadata=knob(
            MEMORY, memory, "memory for the KV cache, such as 4GiB", unset="planned from what the device has"
        ),
    )
    kv_cache_fraction: float | None = field(
        default=None,
        metadata=knob(
            MEMORY,
            share,
            "share of the memory left by weights and workspace that the KV cache takes",
            unset="0.9 of a GPU's memory, 0.5 of a computer's",
        ),
    )
    prefix_cache: bool = field(
        default=True,
        metadata=knob(MEMORY, on_or_off, "reuse the KV cache of prefixes that prompts share: on, off"),
    )
    prefix_cache_dir: Path | None = field(
        default=None,
        metadata=knob(
            MEMORY,
            path("DIR"),
            "folder in which long or shared prefixes of prompts survive a restart; "
            "its files are as confidential as the prompts",
            unset="none",
        ),
    )
    prefix_cache_disk: int = field(
        default=8 * 2**30,
        metadata=knob(MEMORY, memory, "the most that `--prefix-cache-dir` may take of its disk, as 8GiB"),
    )
    max_running: int = field(
        default=64, metadata=knob(LOAD, whole_number(1), "sequences computed together in one step")
    )
    max_queued: int = field(
        default=256,
        metadata=knob(LOAD, whole_number(1), "requests that may wait; more are refused with 429"),
    )
    max_tokens_per_step: int | None = field(
        default=None,
        metadata=knob(
            LOAD,
            whole_number(1),
            "tokens computed in one step; more make long prompts faster and running answers less smooth",
            unset="2048 on a GPU, 512 on a CPU",
        ),
    )
    reasoning_cache_memory: int = field(
        default=64 * 2**20,
        metadata=knob(
            MEMORY,
            memory,
            "memory for chains of thought that led to tool calls, kept until the results come, such as 64MiB",
        ),
    )
    store: Path | None = field(
        default=None,
        metadata=knob(
            MEMORY,
            path("FILE"),
            "where responses and conversations are kept that clients come back to by id, so that they "
            "outlive a restart",
            unset="in memory",
        ),
    )
    store_size: int = field(
        default=256 * 2**20,
        metadata=knob(MEMORY, memory, "the most that is kept of them, as 256MiB; the oldest give way"),
    )
    store_age: float = field(
        default=30 * 24 * 3600,
        metadata=knob(TIME, seconds, "seconds after its last use that a response or conversation is kept"),
    )
    request_timeout: float = field(
        default=600, metadata=knob(TIME, seconds, "seconds a request may take; 0: no limit")
    )
    grace: float = field(
        default=30,
        metadata=knob(
            TIME, seconds, "seconds that running answers may still take when the server is asked to stop"
        ),
    )
    date: str | None = field(
        default=None,
        metadata=knob(
            MODEL,
            iso_date,
            "the date that the model is told, such as 2025-06-28",
            unset="the day of the start",
        ),
    )
    thinking_budget: int | None = field(
        default=None,
        metadata=knob(
            MODEL,
            whole_number(0),
            "tokens of reasoning after which an answer begins, where the request does not say "
            "(`thinking_token_budget`)",
            unset="no limit",
        ),
    )
    api_key: tuple[str, ...] = field(
        default=(),
        metadata=knob(
            CALLERS, text("KEY"), "a key that clients must send", unset="none: no key needed", many=True
        ),
    )
    api_key_file: Path | None = field(
        default=None,
        metadata=knob(CALLERS, path("FILE"), "a file of such keys, one on each line", unset="none"),
    )
    seal_key_file: Path | None = field(
        default=None,
        metadata=knob(
            CALLERS,
            path("FILE"),
            "a file with the secret that sealed chains of thought open with, made if it is not there; set it "
            "where they must outlive a restart, or open on other servers",
            unset="a new secret at each start",
        ),
    )
    cors_origin: tuple[str, ...] = field(
        default=(),
        metadata=knob(
            CALLERS,
            text("ORIGIN"),
            "a web origin whose pages may call; * for any",
            unset="none",
            many=True,
        ),
    )
    allowed_host: tuple[str, ...] = field(
        default=(),
        metadata=knob(
            CALLERS,
            text("NAME"),
            "without keys: a name that a Host header may have, beside localhost and addresses; * for any",
            unset="none",
            many=True,
        ),
    )
    key_requests_per_minute: int | None = field(
        default=None,
        metadata=knob(
            CALLERS,
            whole_number(1, 10**6),
            "requests that one key may make in a minute; more are refused with 429",
            unset="no limit",
        ),
    )
    max_connections: int = field(
        default=1000,
        metadata=knob(
            LOAD, whole_number(1, 10**6), "clients that may be connected; a new one replaces an idle one"
        ),
    )
    max_messages: int = field(
        default=10_000, metadata=knob(LOAD, whole_number(1, 10**6), "messages in one request; more: 400")
    )
    max_tools: int = field(
        default=1000,
        metadata=knob(LOAD, whole_number(1, 10**6), "functions that one request may declare; more: 400"),
    )
    page: bool = field(
        default=True,
        metadata=knob(
            CALLERS, on_or_off, "a chat for people at / and the API's description at /docs: on, off"
        ),
    )
    max_body_bytes: int = field(
        default=8 * 2**20, metadata=knob(LOAD, memory, "longest request body, as 8MiB; longer: 413")
    )
    log_level: str = field(
        default="info",
        metadata=knob(
            LOGS, one_of("debug", "info", "warning", "error", place="LEVEL"), "debug, info, warning or error"
        ),
    )
    log_format: str = field(
        default="text",
        metadata=knob(LOGS, one_of("text", "json"), "text, or json: one object on each line"),
    )

    def host_names(self) -> tuple[str, ...]:
        """What this server may be called, beside localhost and its addresses."""
        return (self.host, *self.allowed_host)

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

    def seal_secret(self) -> bytes:
        """What chains of thought are sealed with."""
        if self.seal_key_file is None:
            return process_secret()
        try:
            return secret_of(self.seal_key_file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(f"--seal-key-file {self.seal_key_file}: {reason}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "is not UTF-8 text"


def flag(knob: Field[Any]) -> str:
    return "--" + knob.name.replace("_", "-")


def variable(knob: Field[Any]) -> str:
    return PREFIX + knob.name.upper()


PRECEDENCE = (
    "A flag beats the environment variable (--max-queued 64: GPTOSS_MAX_QUEUED=64), "
    "the variable the file (max-queued = 64), and the file the default."
)


class SettingsHelp(argparse.HelpFormatter):
    """`--help` with a first line short enough to read: of the settings it says only that there are some."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None = None
    ) -> None:
        knobs = {each.name for each in fields(Settings)}
        own = [action for action in actions if action.dest not in knobs]
        super().add_usage(usage, own, groups, prefix)


def add_flags(parser: argparse.ArgumentParser, only: Iterable[str]) -> None:
    """Give `parser` `--config` and a flag for each of the named knobs.  Values stay text until `read`."""
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
            help=f"{about['meaning']} (default: {_default(each)})".replace("%", "%%"),
        )


KUBERNETES = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""What follows GPTOSS_ in a variable that Kubernetes sets in each container for a Service called gptoss, or
gptoss-SOMETHING.  (One more, GPTOSS_PORT=tcp://10.0.0.1:8000, is called like our setting, and is told by its
value.)
"""


def of_kubernetes(environ: Mapping[str, str]) -> list[str]:
    """Names of variables with our prefix that Kubernetes has set.  They are passed over."""
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
    passed_over = set(of_kubernetes(environ))
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
    known = {CONFIG, *ELSEWHERE, *(variable(each) for each in fields(Settings))}
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name}: there is no such setting; {nearest(name, known)}")


def _from_file(config: Path) -> dict[str, str | list[str]]:
    """The file's settings as text.  Each has to be a knob."""
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
    """What to say to someone who wrote `name`, which is none of the known ones."""
    return did_you_mean(name, known) or f"known are {', '.join(sorted(known))}"


def did_you_mean(name: str, known: Collection[str]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else None


def _value(knob: Field[Any], asked_by: str, text: str | list[str]) -> Any:
    kind, many = knob.metadata["kind"], knob.metadata["many"]
    try:
        if isinstance(text, str):
            return (kind(text),) if many else kind(text)
        if not many:
            raise ValueError("one value, not a list")
        return tuple(kind(part) for part in text)
    except ValueError as error:
        raise SettingsError(f"{asked_by}: must be {error}") from None


def _default(knob: Field[Any]) -> str:
    if knob.metadata["unset"]:
        return str(knob.metadata["unset"])
    if isinstance(knob.default, bool):
        return "on" if knob.default else "off"
    if isinstance(knob.default, int) and knob.metadata["kind"] is memory:
        unit, size = ("GiB", 2**30) if knob.default % 2**30 == 0 else ("MiB", 2**20)
        return f"{knob.default // size}{unit}"
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
