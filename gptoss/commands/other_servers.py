"""Flags of vLLM, llama-server and Ollama, and what they are called here: hints for users who try them."""

from __future__ import annotations

OURS = {
    "--max-model-len": "--max-context",
    "--ctx-size": "--max-context",
    "-c": "--max-context",
    "--num-ctx": "--max-context",
    "--gpu-memory-utilization": "--kv-cache-fraction",
    "--kv-cache-memory-bytes": "--kv-cache-memory",
    "--max-num-seqs": "--max-running",
    "--parallel": "--max-running",
    "-np": "--max-running",
    "--max-num-batched-tokens": "--max-tokens-per-step",
    "--batch-size": "--max-tokens-per-step",
    "-b": "--max-tokens-per-step",
    "--enable-prefix-caching": "--prefix-cache on",
    "--no-enable-prefix-caching": "--prefix-cache off",
    "--cache-prompt": "--prefix-cache on",
    "--no-cache-prompt": "--prefix-cache off",
    "--slot-save-path": "--prefix-cache-dir",
    "--alias": "--served-model-name",
    "-a": "--served-model-name",
    "-m": "--model",
    "-hf": "--model, after `gptoss download`",
    "--hf-repo": "--model, after `gptoss download`",
    "-t": "--threads",
    "--reasoning-budget": "--thinking-budget",
    "--timeout": "--request-timeout",
    "--allowed-origins": "--cors-origin",
    "--cors-origins": "--cors-origin",
    "--uvicorn-log-level": "--log-level",
    "-ngl": "--device: all of a model is on one device",
    "--n-gpu-layers": "--device: all of a model is on one device",
    "--gpu-layers": "--device: all of a model is on one device",
    "--cache-type-k": "--kv-cache-dtype",
    "--cache-type-v": "--kv-cache-dtype",
    "-ctk": "--kv-cache-dtype",
    "-ctv": "--kv-cache-dtype",
}
"""Flag of another server → our flag."""

ALWAYS = "not needed: this server always does it"
NOT_HERE = "this server does not have this feature"

TOLD = {
    "--enable-chunked-prefill": ALWAYS,
    "--enable-auto-tool-choice": ALWAYS,
    "--tool-call-parser": ALWAYS,
    "--reasoning-parser": ALWAYS,
    "--reasoning-format": ALWAYS,
    "--jinja": ALWAYS,
    "--cont-batching": ALWAYS,
    "-cb": ALWAYS,
    "--flash-attn": ALWAYS,
    "-fa": ALWAYS,
    "--metrics": ALWAYS,
    "--trust-remote-code": "not needed: no code of a checkpoint is ever run",
    "--dtype": "weights are kept as published: MXFP4 experts and bf16, or --dense int8",
    "--quantization": "weights are kept as published: MXFP4 experts and bf16, or --dense int8",
    "--chat-template": "harmony is the only format of gpt-oss",
    "--tensor-parallel-size": NOT_HERE,
    "--pipeline-parallel-size": NOT_HERE,
    "--split-mode": NOT_HERE,
    "--enable-lora": NOT_HERE,
    "--lora": NOT_HERE,
    "--speculative-config": NOT_HERE,
    "--mmproj": "gpt-oss reads text only",
    "--ssl-keyfile": "put a proxy with TLS in front: docs/security.md",
    "--ssl-key-file": "put a proxy with TLS in front: docs/security.md",
    "--ssl-certfile": "put a proxy with TLS in front: docs/security.md",
    "--ssl-cert-file": "put a proxy with TLS in front: docs/security.md",
}
"""Flag of another server that has no equivalent here → the reason."""


def hint(flag: str) -> str | None:
    """A hint for a flag of another server; None for an unknown flag."""
    if flag in OURS:
        return f"here it is {OURS[flag]}"
    return TOLD.get(flag)
