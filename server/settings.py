"""Every setting of the program: its name, type, default and meaning.

Flags (`--max-queued 64`), environment variables (`GPTOSS_MAX_QUEUED=64`), the names in a settings file
(`max-queued = 64`) and the README's table are all made from the fields of `Settings`.  They are read in
settings_sources.py.

    python -m server.settings       prints the README's table
"""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from server.dialogue.seal import process_secret, secret_of
from server.setting_kinds import (
    file_or_database,
    iso_date,
    memory,
    on_or_off,
    one_of,
    one_of_numbers,
    path,
    seconds,
    setting,
    share,
    text,
    whole_number,
)

PREFIX = "GPTOSS_"


class SettingsError(Exception):
    """A setting that cannot be used.  The message is one line for the user."""


MODEL, ADDRESS, DEVICE, MEMORY = "the model", "the address", "the device", "memory and context"
LOAD, TIME, CALLERS, LOGS = "load", "time", "access", "logs"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that the program was started with.  Values found out later are not in here."""

    model: Path | None = setting(
        None,
        MODEL,
        path("MODEL"),
        "the checkpoint: a folder, or a name on the Hugging Face hub such as openai/gpt-oss-20b",
        unset="the bundled demo",
    )
    served_model_name: tuple[str, ...] = setting(
        (),
        MODEL,
        text("NAME"),
        "name of the model in requests and answers; if given several times, answers have the first",
        unset="the name of the folder, or on the hub",
        many=True,
    )
    host: str = setting("127.0.0.1", ADDRESS, text("ADDRESS"), "address to listen on; 0.0.0.0 for all")
    port: int = setting(8000, ADDRESS, whole_number(0, 65535), "port to listen on; 0: any free")
    device: str | None = setting(
        None,
        DEVICE,
        text("DEVICE"),
        "device that computes the model: cpu, cuda, cuda:1",
        unset="cuda if there is one, else cpu",
    )
    backend: str | None = setting(
        None,
        DEVICE,
        text("BACKEND"),
        "which implementation computes the model: cpu, triton, or reference (slow, for comparison)",
        unset="the fastest for the device",
    )
    threads: int | None = setting(
        None,
        DEVICE,
        whole_number(1, 4096),
        "threads of the cpu backend; fewer leave cores for other programs",
        unset="one for each core",
    )
    dense: str | None = setting(
        None,
        DEVICE,
        one_of("int8", "bf16"),
        "int8 or bf16: format of the attention and unembedding weights; int8 is smaller and faster",
        unset="int8 by the cpu backend, bf16 by others",
    )
    prompt_activations: int | None = setting(
        None,
        DEVICE,
        one_of_numbers(16, 8),
        "16 or 8: bits of activations while the cpu backend computes prompts; 8 is faster, but less exact",
        unset="16",
    )
    tensor_parallel: int = setting(
        1,
        DEVICE,
        whole_number(1, 64),
        "2, 4 or 8: number of GPUs that compute one model together, each with a part of it; for models that "
        "do not fit on one GPU; on a CPU, number of processes",
    )
    batch_invariant: bool = setting(
        False,
        DEVICE,
        on_or_off,
        "on: output is bit-identical whatever else is in the batch (slower on GPUs)",
    )
    kv_cache_dtype: str | None = setting(
        None,
        MEMORY,
        one_of("bf16", "fp8"),
        "bf16 or fp8: format of the KV cache of full-attention layers on GPUs; fp8 halves its memory",
        unset="bf16",
    )
    max_context: int | None = setting(
        None,
        MEMORY,
        whole_number(16),
        "maximum tokens of prompt and answer together; a smaller number needs less memory",
        unset="the checkpoint's",
    )
    kv_cache_memory: int | None = setting(
        None,
        MEMORY,
        memory,
        "memory for the KV cache, such as 4GiB",
        unset="planned from the free memory",
    )
    kv_cache_fraction: float | None = setting(
        None,
        MEMORY,
        share,
        "share of the memory left by weights and workspace that the KV cache may use",
        unset="0.9 on a GPU, 0.5 on a CPU",
    )
    prefix_cache: bool = setting(
        True, MEMORY, on_or_off, "whether to reuse the KV cache of prefixes that prompts share"
    )
    prefix_cache_per_key: bool = setting(
        False,
        MEMORY,
        on_or_off,
        "on: reuse the KV cache only between requests with the same API key, so that response times tell "
        "nothing about the prompts of other keys",
    )
    prefix_cache_dir: Path | None = setting(
        None,
        MEMORY,
        path("DIR"),
        "folder for the KV cache of long or shared prefixes, which then survives a restart; "
        "its files are as confidential as the prompts",
        unset="none",
    )
    prefix_cache_disk: int = setting(
        8 * 2**30, MEMORY, memory, "maximum disk space of `--prefix-cache-dir`, such as 8GiB"
    )
    max_running: int = setting(64, LOAD, whole_number(1), "maximum sequences computed together in one step")
    max_queued: int = setting(
        256, LOAD, whole_number(1), "maximum requests that may wait; more are refused with 429"
    )
    max_tokens_per_step: int | None = setting(
        None,
        LOAD,
        whole_number(1),
        "maximum tokens computed in one step; more make long prompts faster and other answers less smooth",
        unset="2048 on a GPU, 512 on a CPU",
    )
    reasoning_cache_memory: int = setting(
        64 * 2**20,
        MEMORY,
        memory,
        "memory for chains of thought that led to tool calls, kept until the results come, such as 64MiB",
    )
    store: Path | str | None = setting(
        None,
        MEMORY,
        file_or_database,
        "file, or postgresql://… URL of a database that several servers may share, for stored responses and "
        "conversations, so that clients can use their ids after a restart",
        unset="in memory",
    )
    store_size: int = setting(
        256 * 2**20,
        MEMORY,
        memory,
        "maximum size of stored responses and conversations, such as 256MiB; the least recently used "
        "are deleted",
    )
    store_age: float = setting(
        30 * 24 * 3600, TIME, seconds, "seconds that a response or conversation is kept after its last use"
    )
    request_timeout: float = setting(600, TIME, seconds, "seconds a request may take; 0: no limit")
    grace: float = setting(
        30, TIME, seconds, "seconds that running answers may take to finish when the server is told to stop"
    )
    date: str | None = setting(
        None,
        MODEL,
        iso_date,
        "the current date in the model's prompt, such as 2025-06-28",
        unset="the day of the start",
    )
    thinking_budget: int | None = setting(
        None,
        MODEL,
        whole_number(0),
        "maximum tokens of reasoning, for requests without `thinking_token_budget`",
        unset="no limit",
    )
    api_key: tuple[str, ...] = setting(
        (), CALLERS, text("KEY"), "a key that clients must send", unset="none: no key needed", many=True
    )
    api_key_file: Path | None = setting(
        None,
        CALLERS,
        path("FILE"),
        "file with API keys that clients may send, one on each line",
        unset="none",
    )
    seal_key_file: Path | None = setting(
        None,
        CALLERS,
        path("FILE"),
        "file with the key that encrypts chains of thought sent to clients, created if missing; "
        "set it if they must be readable after a restart or by other servers",
        unset="a new key at each start",
    )
    cors_origin: tuple[str, ...] = setting(
        (),
        CALLERS,
        text("ORIGIN"),
        "web origin whose pages may call this server; * for any",
        unset="none",
        many=True,
    )
    allowed_host: tuple[str, ...] = setting(
        (),
        CALLERS,
        text("NAME"),
        "without API keys: a name that the Host header may have, beside localhost and addresses; * for any",
        unset="none",
        many=True,
    )
    key_requests_per_minute: int | None = setting(
        None,
        CALLERS,
        whole_number(1, 10**6),
        "maximum requests of one API key in a minute; more are refused with 429",
        unset="no limit",
    )
    max_connections: int = setting(
        1000, LOAD, whole_number(1, 10**6), "maximum open connections; a new one replaces an idle one"
    )
    max_messages: int = setting(
        10_000, LOAD, whole_number(1, 10**6), "maximum messages in one request; more are refused with 400"
    )
    max_tools: int = setting(
        1000,
        LOAD,
        whole_number(1, 10**6),
        "maximum functions that one request may declare; more are refused with 400",
    )
    reasoning_field: str = setting(
        "both",
        CALLERS,
        one_of("both", "reasoning", "reasoning_content"),
        "reasoning, reasoning_content or both: name of the field for the chain of thought in answers "
        "to chats",
    )
    strict_fields: bool = setting(
        False,
        CALLERS,
        on_or_off,
        "on: refuse requests with unknown fields; off: name these fields in the log and in the header "
        "x-gptoss-ignored",
    )
    page: bool = setting(
        True, CALLERS, on_or_off, "whether to serve the chat page at / and the API documentation at /docs"
    )
    max_body_bytes: int = setting(
        8 * 2**20, LOAD, memory, "longest request body, such as 8MiB; a longer one is refused with 413"
    )
    log_level: str = setting(
        "info",
        LOGS,
        one_of("debug", "info", "warning", "error", place="LEVEL"),
        "lowest level of messages that are logged: debug, info, warning or error",
    )
    log_format: str = setting(
        "text", LOGS, one_of("text", "json"), "format of log lines: text, or json (one object on each line)"
    )

    def host_names(self) -> tuple[str, ...]:
        """Names that the Host header may have, beside localhost and IP addresses."""
        return (self.host, *self.allowed_host)

    def api_keys(self) -> tuple[str, ...]:
        """All API keys, from flags and file.  If there are none, clients need no key."""
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
        """The secret from which the key that encrypts chains of thought is derived."""
        if self.seal_key_file is None:
            return process_secret()
        try:
            return secret_of(self.seal_key_file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(f"--seal-key-file {self.seal_key_file}: {reason}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "is not UTF-8 text"


def flag(field: Field[Any]) -> str:
    return "--" + field.name.replace("_", "-")


def variable(field: Field[Any]) -> str:
    return PREFIX + field.name.upper()


def default_text(field: Field[Any]) -> str:
    if field.metadata["unset"]:
        return str(field.metadata["unset"])
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    if isinstance(field.default, int) and field.metadata["kind"] is memory:
        unit, size = ("GiB", 2**30) if field.default % 2**30 == 0 else ("MiB", 2**20)
        return f"{field.default // size}{unit}"
    return str(field.default)


def table() -> str:
    """The README's table, in Markdown."""
    rows = [
        f"| `{flag(each)}` | `{variable(each)}` | {default_text(each)} | {each.metadata['meaning']} |"
        for each in fields(Settings)
    ]
    return "\n".join(["| flag | variable | default | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
