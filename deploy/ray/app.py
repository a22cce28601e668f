"""The deployment: our ASGI application unchanged, in each replica.

    serve run deploy/ray/serve.yaml                             with the arguments in the file
    serve run deploy.ray.app:build min_replicas=2 gpus=1        the same, from the command line

A replica is a complete server, with its own model, engine, cache and queue.  Ray starts, ends and watches
replicas, takes requests at one address, and starts more replicas under load.  The settings are those of
`gptoss serve`; GPTOSS_… variables of Ray's nodes are read too.

    429          comes from the replica: Ray does not queue requests that a replica would refuse
    disconnect   Ray informs the replica, which stops computing
    scale-down   a replica that will end gets no new requests, and finishes its answers (within --grace)
    failure      of an engine: check_health fails, and Ray starts another replica; of a process: the same
"""

from __future__ import annotations

import logging
import os
from dataclasses import fields
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from gptoss.application import application
from server import logs, settings_sources
from server.settings import Settings, SettingsError

log = logging.getLogger("gptoss.server")

SPARE = 100
"""Further requests that Ray sends to a replica whose engine is full: for other endpoints, or to
be refused.
"""


class Arguments(BaseModel):
    """
    settings         of `gptoss serve`, as in its settings file: {"model": "openai/gpt-oss-20b"}
    gpus, cpus       for each replica
    target_requests  running and queued requests for each replica; with more, another replica starts.  By
                     default max-running
    upscale_seconds, downscale_seconds   how long the number must be too high, or too low, before it is
                                         changed
    look_back_seconds                    the period over which the number of requests is averaged
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, str | int | float | bool | list[str]] = {}
    min_replicas: int = 1
    max_replicas: int | None = None
    gpus: float = 0
    cpus: float = 1
    target_requests: int | None = None
    upscale_seconds: float = 30
    downscale_seconds: float = 600
    look_back_seconds: float = 30


def read(given: dict[str, Any]) -> Settings:
    """Raises SettingsError."""
    named = {name.replace("-", "_"): _text(each) for name, each in given.items()}
    known = {each.name for each in fields(Settings)}
    for name in named.keys() - known:
        raise SettingsError(f"there is no setting {name!r}; {settings_sources.nearest(name, known)}")
    return settings_sources.read(named, os.environ)


def _text(value: Any) -> str | list[str]:
    if isinstance(value, bool):
        return "on" if value else "off"
    return [str(each) for each in value] if isinstance(value, list) else str(value)


@serve.ingress()
class GptOss:
    """One replica."""

    def __init__(self, given: dict[str, Any]):
        settings = read(given)
        logs.configure(settings.log_level, settings.log_format)
        self._made = application(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._made.app

    def __del__(self) -> None:
        """Ray calls this when the application has ended."""
        if hasattr(self, "_made") and (others := self._made.assembled.others) is not None:
            others.close()

    def check_health(self) -> None:
        if self._made.worker.died is not None:
            raise RuntimeError("the engine died")


def build(args: Arguments) -> Application:
    """For Ray."""
    settings = read(args.settings)  # so that a wrong setting is reported here, and not by each replica
    most = args.max_replicas or args.min_replicas
    if most > 1 and not isinstance(settings.store, str):
        log.warning(
            "stored responses are found only at the replica that made them, unless --store is a database"
        )
    deployment = serve.deployment(
        GptOss,
        name="gptoss",
        ray_actor_options={"num_gpus": args.gpus, "num_cpus": args.cpus},
        max_ongoing_requests=settings.max_running + settings.max_queued + SPARE,
        autoscaling_config=AutoscalingConfig(
            min_replicas=args.min_replicas,
            max_replicas=most,
            target_ongoing_requests=args.target_requests or settings.max_running,
            upscale_delay_s=args.upscale_seconds,
            downscale_delay_s=args.downscale_seconds,
            look_back_period_s=args.look_back_seconds,
        ),
        request_router_config=RequestRouterConfig(
            request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
        ),
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.grace + 5,
        health_check_period_s=5,
    )
    return deployment.bind(args.settings)
