"""The targets for fuzzing: each reads untrusted bytes, and must behave as its docstring says.

A target is a function of bytes.  It returns if the code behaved correctly, whether the bytes are valid or
not, and otherwise raises an exception.  `python -m tests.tools.fuzz TARGET` searches for bytes for which it
raises.  The tests beside this file try each target with bytes that were found before, and with some written
by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from language.harmony.messages import Tool
from language.harmony.reader import CallDelta, CallStart, Reader
from language.harmony.sampled_header import SampledHeader
from language.tokenizer import Tokenizer
from model.config import CheckpointError, ModelConfig
from model.loading.checkpoint import Checkpoint
from server import settings_sources
from server.front.protocol import AHEAD_BYTES, HEAD_FIELDS, BoundedProtocol
from server.settings import SettingsError
from tests.server.fakes import byte_tokenizer

Target = Callable[[bytes], None]

HERE = Path(__file__).parent


@cache
def scratch() -> Path:
    """A folder that is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="gptoss-fuzz-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[Any] = []


@cache
def tokenizer() -> Tokenizer:
    return byte_tokenizer(scratch())


def harmony(data: bytes) -> None:
    """Any tokens can be read as an answer, without an exception: deltas are in order, and calls are counted.

    The first byte selects the beginning in the prompt and the declared tools.  The others are tokens; those
    from 224 on are special.
    """
    if not data:
        return
    specials = sorted(tokenizer().specials.values())
    tokens = [specials[byte % len(specials)] if byte >= 224 else (7 * byte + 11) % 256 for byte in data[1:]]
    tools = [Tool("f", None, {}), Tool("ns.g", None, {})] if data[0] & 1 else []
    reader = Reader(tokenizer(), "final" if data[0] & 2 else None, tools)
    deltas = [delta for token in tokens for delta in reader.feed(token)] + reader.finish()
    calls = [delta.index for delta in deltas if isinstance(delta, CallStart)]
    assert calls == list(range(len(calls)))
    begun = -1
    for delta in deltas:
        if isinstance(delta, CallStart):
            begun = delta.index
        elif isinstance(delta, CallDelta):
            assert delta.index == begun, "arguments of a call that had not begun"
    assert reader.finish() == [], "all had been told"


def header(data: bytes) -> None:
    """Any text can be read as a header: the rest becomes the body, and no text is lost or added."""
    if not data:
        return
    text = data[1:].decode("utf-8", "replace")
    subject = SampledHeader(given=bool(data[0] & 1))
    for part in text.split("|"):
        subject.add(part)
        if data[0] & 2 and subject.channel is None:
            subject.channel = ""
        elif data[0] & 4 and subject.type is None:
            subject.type = ""
    assert isinstance(subject.plausible, bool)
    body = subject.take_body()
    assert body in text.replace("|", "")
    parsed = subject.parse()
    assert parsed.channel in (None, "analysis", "commentary", "final")
    assert parsed.recipient is None or parsed.recipient in text.replace("|", "")


class Wire(asyncio.Transport):
    """A fake connection for the protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the body, and answers with its length."""
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    body = b"%d" % length
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _config() -> Config:
    config = Config(_echo, log_config=None, access_log=False, lifespan="off")
    config.load()
    return config


def http(data: bytes) -> None:
    """Any bytes get a valid HTTP response or none, and memory for them is limited.

    The first byte is the size of the pieces in which the others arrive.
    """
    if not data:
        return
    _loop().run_until_complete(_connection(data))


async def _connection(data: bytes) -> None:
    wire, failures = Wire(), []
    _loop().set_exception_handler(lambda _, context: failures.append(context))
    protocol = BoundedProtocol(_config(), ServerState(), {}, _loop=_loop())
    protocol.connection_made(wire)
    step = data[0] + 1
    for start in range(1, len(data), step):
        if wire.closed:
            break
        protocol.data_received(data[start : start + step])
        await asyncio.sleep(0)
        assert len(protocol._ahead) <= AHEAD_BYTES + step
        assert protocol._fields <= HEAD_FIELDS + 1
    for _ in range(6):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks, return_exceptions=True)
    assert not wire.written or wire.written.startswith(b"HTTP/1.1 ")
    assert not failures, failures
    assert b" 500 " not in wire.written


def index(data: bytes) -> None:
    """Any bytes as an index of shards, or as the header of a file of weights, give a CheckpointError or can
    be loaded.

    The first byte selects one of the two; the other files are the demo's.
    """
    if not data:
        return
    folder = _checkpoint()
    listed, weights = folder / "model.safetensors.index.json", folder / "model.safetensors"
    before = weights.read_bytes() if data[0] & 1 else b""
    try:
        if data[0] & 1:
            weights.write_bytes(len(data[1:]).to_bytes(8, "little") + data[1:])
            os.truncate(weights, 8 + len(data[1:]) + _promised(data[1:]))
        else:
            listed.write_bytes(data[1:])
        Checkpoint.open(folder)
    except CheckpointError as error:
        _says_it_in_short(error)
    finally:
        listed.unlink(missing_ok=True)
        if before:
            weights.write_bytes(before)


def _promised(header: bytes) -> int:
    """Number of bytes that must follow this header, so that the file is not simply too short."""
    ends = [0]
    with suppress(ValueError, OverflowError, RecursionError, TypeError, LookupError, AttributeError):
        ends += [int(entry["data_offsets"][1]) for entry in json.loads(header).values()]
    return min(max(ends), 2**26)


def config(data: bytes) -> None:
    """Any bytes as config.json give a configuration or a CheckpointError."""
    path = scratch() / "config.json"
    path.write_bytes(data)
    try:
        read = ModelConfig.read(scratch())
    except CheckpointError as error:
        _says_it_in_short(error)
    else:
        assert 0 < read.num_layers <= 1024


def settings_file(data: bytes) -> None:
    """Any bytes as a settings file give settings or a SettingsError."""
    path = scratch() / "gptoss.toml"
    path.write_bytes(data)
    try:
        settings_sources.read({"config": str(path)}, {})
    except SettingsError as error:
        _says_it_in_short(error)


def _says_it_in_short(error: Exception) -> None:
    assert len(str(error)) < 5000


@cache
def _checkpoint() -> Path:
    """A folder with the demo's config.json, and a file of weights without tensors."""
    folder = scratch() / "checkpoint"
    folder.mkdir()
    demo = Path(__file__).parents[3] / "demo" / "weights"
    (folder / "config.json").write_bytes((demo / "config.json").read_bytes())
    nothing = b"{}"
    (folder / "model.safetensors").write_bytes(len(nothing).to_bytes(8, "little") + nothing)
    return folder


TARGETS: dict[str, Target] = {
    "http": http,
    "harmony": harmony,
    "header": header,
    "index": index,
    "config": config,
    "settings": settings_file,
}


def _head_of_the_demo() -> bytes:
    with (HERE.parents[2] / "demo" / "weights" / "model.safetensors").open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"

SEEDS: dict[str, list[bytes]] = {
    "http": [
        b"\x10" + GET + b"\r\n" + GET + b"connection: close\r\n\r\n",
        b"\xff" + POST + b"content-length: 3\r\n\r\nabc" + GET + b"\r\n",
        b"\x01" + POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n",
        b"\x40" + GET + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n",
        b"\x40" + POST + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\na",
    ],
    "harmony": [
        b"\x01" + bytes([226, 97, 98, 228, 32, 99, 230]),
        b"\x00<\xe0analysis\xe2to=functions.f\xe1{}",
    ],
    "header": [
        b"\x03assistant to=functions.f|commentary json",
        b"\x00analysis",
        b"\x05user|final <|constrain|>",
    ],
    "index": [
        b"\x00" + json.dumps({"weight_map": {"a": "model.safetensors", "b": "../x"}}).encode(),
        b"\x00" + b"[" * 5000,
        b"\x01" + _head_of_the_demo(),
        b"\x01" + json.dumps({"a": {"dtype": "U8", "shape": [2, 4], "data_offsets": [0, 8]}}).encode(),
    ],
    "config": [
        (HERE.parents[2] / "demo" / "weights" / "config.json").read_bytes(),
        b'{"model_type": "gpt_oss"}',
    ],
    "settings": [
        b'max-queued = 64\napi-key = ["a", "b"]\nprefix-cache = false\ndate = 2025-06-28\n',
        b"[a]\nb = 1\n",
    ],
}
