"""Builds the program: settings → checkpoint → kernels → model → memory plan → runner → engine.

Any problem with a folder, a device or a backend is found here, and raised as a one-line StartError.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine import memory
from engine.admission import Limits
from engine.engine import Engine
from engine.memory import MemoryPlan
from engine.runner import Runner
from gptoss.hub.cache import is_repo, locate, repo_of
from gptoss.prefix_disk import prefix_pages_on_disk
from gptoss.progress import Progress
from gptoss.ranks import start as ranks
from gptoss.start import StartError
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer, TokenizerError
from model import backends as kernels
from model import device as devices
from model.batch import PerKind
from model.byte_sizes import format_bytes
from model.config import CheckpointError, ModelConfig
from model.loading.checkpoint import Checkpoint
from model.loading.synthetic import Synthetic
from server.settings import Settings
from server.version import VERSION

if TYPE_CHECKING:
    from gptoss.ranks.others import Others
    from model.interfaces import LoadedModel, Model

DEMO = Path(str(files("demo"))) / "weights"
DEMO_NAME = "gptoss-demo"

GPU_SHARE = 0.9
CPU_SHARE = 0.5
"""Share of a free memory that the KV cache gets by default: less on a computer, which has other work."""

WORTH_SHOWING = 2**28
"""Bytes of weights; loading fewer takes so little time that no progress is shown."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """
    model_id      the model's name in requests and answers
    max_context   maximum tokens of prompt and answer together
    fingerprint   identifies weights and version
    load_seconds  time to load everything
    summary       what was loaded, for the user
    others        the processes of the other ranks, with --tensor-parallel
    """

    tokenizer: Tokenizer
    engine: Engine
    config: ModelConfig
    model_id: str
    max_context: int
    fingerprint: str
    load_seconds: float
    summary: str
    others: Others | None = None

    def close(self) -> None:
        """End the engine and the other ranks.  Safe to call twice."""
        self.engine.close()
        if self.others is not None:
            ranks.end(self.others)


def assemble(settings: Settings) -> Assembled:
    """Raises StartError."""
    began = time.perf_counter()
    try:
        device = devices.find(settings.device)
        checkpoint = Checkpoint.open(folder_of(settings))
        tokenizer = Tokenizer(checkpoint.tokenizer_path)
        Renderer(tokenizer)  # checks now that harmony's special tokens exist, rather than at the first chat
        split = settings.tensor_parallel > 1
        place = _on_ranks if split else _on_one_device
        placed = place(settings, checkpoint, device)
        model, plan = placed.model, placed.plan
        try:
            engine = _engine(settings, checkpoint, model, tokenizer, plan)
        except BaseException:
            if placed.others is not None:
                ranks.end(placed.others)
            raise
    except (CheckpointError, TokenizerError, devices.DeviceError, memory.TooLittleMemory) as error:
        raise StartError(str(error)) from error
    load_seconds = time.perf_counter() - began
    speed = f"{format_bytes(checkpoint.nbytes)} at {format_bytes(checkpoint.nbytes / load_seconds)}/s"
    model_id = settings.served_model_name[0] if settings.served_model_name else name_of(settings)
    config = checkpoint.config
    sizes = f"{config.num_layers} layers, {config.num_experts} experts"
    summary = (
        f"gptoss {VERSION}: {model_id} ({sizes}), loaded in {load_seconds:.1f} s ({speed})\n"
        f"device: {placed.devices}, kernels: {kernels.choose(device, settings.backend)}\n{plan}"
    )
    if (folder := settings.prefix_cache_dir) is not None:
        used, most = engine.stats().disk_bytes, settings.prefix_cache_disk
        summary += f"\nprefixes on disk: {format_bytes(used)} of at most {format_bytes(most)} in {folder}"
    return Assembled(
        tokenizer=tokenizer,
        engine=engine,
        config=checkpoint.config,
        model_id=model_id,
        max_context=engine.limits.max_context,
        fingerprint=fingerprint(checkpoint),
        load_seconds=load_seconds,
        summary=summary,
        others=placed.others,
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A model in memory, on one device or split over ranks.

    devices  their names, for the user
    """

    model: Model
    plan: MemoryPlan
    devices: str
    others: Others | None = None


def _on_one_device(settings: Settings, checkpoint: Checkpoint, device: devices.Device) -> _Placed:
    model = build(settings, checkpoint, device)
    plan = plan_memory(settings, model, device, free_bytes(device) + model.weight_bytes)
    return _Placed(model, plan, str(device))


def _on_ranks(settings: Settings, checkpoint: Checkpoint, device: devices.Device) -> _Placed:
    """The plan is that of the rank with the least free memory."""
    ranks.check(settings, checkpoint, device)
    options = backend_options(settings, device)
    with _usable(settings, device), _shown(checkpoint, settings.tensor_parallel):
        started = ranks.start(settings, checkpoint, device, options)
    try:
        plans = [
            plan_memory(settings, RankFootprint.of(started.model, weights), device, free + weights)
            for weights, free in zip(started.weights, started.free, strict=True)
        ]
    except BaseException:
        ranks.end(started.others)
        raise
    plan = min(plans, key=lambda plan: plan.keys_and_values)
    least = plans.index(plan)
    each = f"{', '.join(started.devices)} (tensor parallel; the memory of each rank, of rank {least} here)"
    return _Placed(started.model, plan, each, started.others)


def folder_of(settings: Settings) -> Path:
    """The folder of the model.  Raises NotDownloaded."""
    return locate(settings.model) if settings.model else DEMO


def build(settings: Settings, checkpoint: Checkpoint | Synthetic, device: devices.Device) -> LoadedModel:
    """The model on its device, with the chosen backend.  Raises StartError or CheckpointError."""
    if settings.tensor_parallel > 1:
        raise StartError("--tensor-parallel: this command loads a whole model; set it to 1 here")
    options = backend_options(settings, device)
    with _usable(settings, device), _shown(checkpoint):
        return kernels.load(device, settings.backend).build(checkpoint, device, **options)


def backend_options(settings: Settings, device: devices.Device) -> dict[str, Any]:
    """The backend's settings.  Raises StartError if it cannot be loaded, or does not have one of them."""
    asked = {
        "threads": settings.threads,
        "dense": settings.dense,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "prompt_activations": settings.prompt_activations,
        "batch_invariant": settings.batch_invariant or None,
    }
    options = {option: value for option, value in asked.items() if value is not None}
    with _usable(settings, device):
        backend = kernels.load(device, settings.backend)
    for option in options:
        if option not in backend.defaults:
            flag = option.replace("_", "-")
            raise StartError(f"--{flag}: the {backend.name} backend has no such setting")
    return options


@contextmanager
def _usable(settings: Settings, device: devices.Device) -> Iterator[None]:
    """Turns exceptions into a StartError that names the backend."""
    try:
        yield
    except (ImportError, ValueError) as error:
        name = kernels.choose(device, settings.backend)
        raise StartError(f"the {name} backend cannot be used on {device}: {error}") from error


@contextmanager
def _shown(checkpoint: Checkpoint | Synthetic, ranks: int = 1) -> Iterator[None]:
    """Shows the progress of loading on stderr, unless it takes too little time.

    ranks  number of ranks, of which each loads a part
    """
    if checkpoint.nbytes < WORTH_SHOWING:
        yield
        return
    with Progress("loading", checkpoint.nbytes // ranks) as progress:
        checkpoint.on_read = progress.add
        yield


class Footprint(Protocol):
    """The memory that a model needs, loaded or not; see `Model`."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def page_size(self) -> int: ...
    @property
    def page_bytes(self) -> PerKind: ...
    @property
    def weight_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RankFootprint:
    """The memory that one rank's part needs.  `config` is that of the whole model."""

    config: ModelConfig
    page_size: int
    page_bytes: PerKind
    weight_bytes: int

    @classmethod
    def of(cls, model: Footprint, weight_bytes: int) -> RankFootprint:
        """All ranks' pages have the same size."""
        return cls(model.config, model.page_size, model.page_bytes, weight_bytes)


def plan_memory(settings: Settings, model: Footprint, device: devices.Device, available: int) -> MemoryPlan:
    """How the device's `available` bytes are divided, weights included.  Raises TooLittleMemory."""
    return memory.plan(
        model.weight_bytes,
        model.page_bytes,
        model.page_size,
        model.config.sliding_window,
        available,
        max_context=max_context(settings, model.config),
        max_running=settings.max_running,
        kv_bytes=settings.kv_cache_memory,
        fraction=settings.kv_cache_fraction or (GPU_SHARE if device.type == "cuda" else CPU_SHARE),
    )


def max_context(settings: Settings, config: ModelConfig) -> int:
    """Maximum tokens of prompt and answer together.  Raises StartError if the model has a shorter context."""
    asked = settings.max_context or config.max_context
    if asked > config.max_context:
        raise StartError(f"--max-context {asked}: this model's context is {config.max_context} tokens")
    return asked


def tokens_per_step(settings: Settings, device: devices.Device) -> int:
    """Maximum tokens of a step.  In a shorter step on a GPU, each expert would get too few tokens."""
    return settings.max_tokens_per_step or (2048 if device.type == "cuda" else 512)


def free_bytes(device: devices.Device) -> int:
    """Free memory of the device."""
    return devices.free_bytes(device) if device.type == "cuda" else memory.free_host_bytes()


def _engine(
    settings: Settings, checkpoint: Checkpoint, model: Model, tokenizer: Tokenizer, plan: MemoryPlan
) -> Engine:
    vocab_size = model.config.vocab_size
    known = [id for id in range(vocab_size) if tokenizer.known(id)]
    if len(known) < tokenizer.size:
        raise StartError(
            f"the tokenizer has {tokenizer.size} tokens, but the model knows only {vocab_size} ids"
        )
    banned = set(range(known[-1])) - set(known)
    limits = Limits(
        num_pages=plan.num_pages,
        page_size=plan.page_size,
        window=model.config.sliding_window,
        max_context=max_context(settings, model.config),
        max_running=settings.max_running,
        max_tokens_per_step=tokens_per_step(settings, model.device),
        max_queued=settings.max_queued,
        prefix_cache=settings.prefix_cache,
        equal_shares=model.device.type == "cpu",
    )
    runner = Runner(model, plan.num_pages, known[-1] + 1, banned)
    runner.prepare(settings.max_running)
    if settings.prefix_cache_dir is None:
        return Engine(runner, limits)
    pages, disk = prefix_pages_on_disk(settings, checkpoint, model, runner, limits)
    return Engine(runner, limits, pages=pages, disk=disk)


def name_of(settings: Settings) -> str:
    """The name of the model: for a folder its name, such as `gpt-oss-20b` (of the parent, if it is called
    `original`); for a model of the hub its name there, such as `openai/gpt-oss-20b`.
    """
    if settings.model is None:
        return DEMO_NAME
    if is_repo(settings.model):
        return str(settings.model)
    folder = settings.model.resolve()
    folder = folder.parent if folder.name == "original" else folder
    return repo_of(folder) or folder.name


def fingerprint(checkpoint: Checkpoint) -> str:
    """Identifies weights and version.  Reads only each file's name, size and first megabyte."""
    digest = hashlib.sha256(VERSION.encode())
    for path in sorted([*checkpoint.folder.glob("*.safetensors"), checkpoint.folder / "config.json"]):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(file.read(2**20))
    return f"fp_{digest.hexdigest()[:12]}"
