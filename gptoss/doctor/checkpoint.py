"""Checks the model: the checkpoint, its tokenizer, the memory it needs, and its first token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import EngineError
from engine.memory import MemoryPlan, TooLittleMemory
from engine.pages import Pages
from gptoss.assembly import WORTH_SHOWING, folder_of, free_bytes, name_of, plan_memory
from gptoss.doctor.findings import Finding
from gptoss.hub.cache import NotDownloaded
from gptoss.llm import LLM
from gptoss.start import StartError
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer, TokenizerError
from model import backends
from model import device as devices
from model.batch import BANDED, FULL, PerKind
from model.byte_sizes import format_bytes
from model.config import CheckpointError, ModelConfig
from model.interfaces import Backend
from model.loading.checkpoint import Checkpoint
from model.parallel.ranks import Ranks
from model.sizes import page_bytes, weight_bytes
from server.settings import Settings

PUBLISHED = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"
"""SHA-256 of the tokenizer.json that openai/gpt-oss-20b and -120b are published with."""

PUBLISHED_VOCABULARY = 201088

STREAM = 4096
"""Tokens of a typical conversation, to calculate how many fit."""


def examine(settings: Settings, device: devices.Device | None, full: bool) -> Iterator[Finding]:
    """device  None: no device was found, so nothing is loaded"""
    try:
        checkpoint = Checkpoint.open(folder_of(settings))
    except NotDownloaded as error:
        yield Finding("model", str(error), f"gptoss download {error.repo}", problem=True)
        return
    except (CheckpointError, StartError) as error:
        yield Finding("model", str(error), "give another folder with --model, or omit it", problem=True)
        return
    config = checkpoint.config
    sizes = f"{config.num_layers} layers, {config.num_experts} experts, {format_bytes(checkpoint.nbytes)}"
    yield Finding("model", f"{name_of(settings)}: {sizes}, in {checkpoint.folder}")
    tokenizer = _tokenizer(checkpoint)
    yield tokenizer
    if device is None:
        return
    try:
        backend = backends.load(device, settings.backend)
    except (ImportError, ValueError):
        return  # the finding about kernels has the reason
    plan = _plan(settings, config, device, backend)
    yield plan
    if tokenizer.problem or plan.problem:
        return
    if full or checkpoint.nbytes < WORTH_SHOWING:
        yield _first_token(settings)
    else:
        size = format_bytes(checkpoint.nbytes)
        yield Finding("first token", f"not tried, because {size} would be loaded; use --full to try it")


def _tokenizer(checkpoint: Checkpoint) -> Finding:
    try:
        path = checkpoint.tokenizer_path
        tokenizer = Tokenizer(path)
        Renderer(tokenizer)
    except (CheckpointError, TokenizerError) as error:
        remedy = "use the tokenizer.json that was published with the model"
        return Finding("tokenizer", str(error), remedy, problem=True)
    vocabulary = checkpoint.config.vocab_size
    text = f"{tokenizer.size} tokens, sha256 {tokenizer.checksum[:16]}"
    if tokenizer.size > vocabulary:
        return Finding(
            "tokenizer",
            f"{text}, but the model knows only {vocabulary} ids",
            f"replace {path} by the one that was published with the model",
            problem=True,
        )
    if tokenizer.checksum == PUBLISHED:
        return Finding("tokenizer", f"{text}: the published one of gpt-oss")
    if vocabulary == PUBLISHED_VOCABULARY:
        return Finding(
            "tokenizer",
            f"{text}: not the published one of gpt-oss ({PUBLISHED[:16]})",
            f"download {path} again, unless this is a fine-tune with another tokenizer",
        )
    return Finding("tokenizer", f"{text}: this model's own")


@dataclass(frozen=True, slots=True)
class _Expected:
    """The memory that a model will need, calculated before it is loaded."""

    config: ModelConfig
    page_size: int
    page_bytes: PerKind
    weight_bytes: int


def _expected(settings: Settings, config: ModelConfig, backend: Backend) -> _Expected:
    dense = settings.dense or str(backend.defaults.get("dense", "bf16"))
    part = Ranks(0, settings.tensor_parallel).config(config)
    weights = weight_bytes(part, dense, embedding=not backend.embedding_in_file)
    pages = page_bytes(part, backend.page_size, settings.kv_cache_dtype or "bf16")
    return _Expected(config, backend.page_size, pages, weights)


def _plan(settings: Settings, config: ModelConfig, device: devices.Device, backend: Backend) -> Finding:
    try:
        expected = _expected(settings, config, backend)
    except CheckpointError as error:
        return Finding("memory", str(error), "choose a number that is possible", problem=True)
    free = free_bytes(device) // (settings.tensor_parallel if device.type == "cpu" else 1)
    try:
        plan = plan_memory(settings, expected, device, free)
    except TooLittleMemory as error:
        remedy = "free some memory, or lower --kv-cache-memory; gpt-oss-20b needs about 16 GB in total"
        return Finding("memory", str(error), remedy, problem=True)
    shares = f"{format_bytes(plan.weights)} weights, {format_bytes(plan.keys_and_values)} keys and values"
    text = f"about {shares}, of {format_bytes(plan.available)} free on {device}"
    if settings.tensor_parallel > 1:
        text = f"of each rank {text}"
    return Finding(
        "memory", f"{text}: {plan.context_tokens} tokens of context, {_streams(settings, config, plan)}"
    )


def _streams(settings: Settings, config: ModelConfig, plan: MemoryPlan) -> str:
    """How many typical conversations fit at once."""
    length = min(STREAM, plan.context_tokens)
    banded, full = Pages(0, plan.page_size, config.sliding_window).needed_of_each(length)
    if isinstance(plan.num_pages, int):
        fit = plan.num_pages // (banded + full)
    else:
        fit = min(plan.num_pages[BANDED] // banded, plan.num_pages[FULL] // full)
    return f"{min(settings.max_running, fit)} streams of {length}"


def _first_token(settings: Settings) -> Finding:
    """Load the model and compute one token."""
    try:
        with LLM.of(settings) as llm:
            llm.generate([[llm.tokenizer.special("<|start|>")]], max_tokens=1, temperature=0)
            load_seconds = llm.assembled.load_seconds
    except (StartError, EngineError) as error:
        return Finding("first token", str(error), "one of the problems above may be the cause", problem=True)
    return Finding("first token", f"loaded in {load_seconds:.1f} s, one token computed")
