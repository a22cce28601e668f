"""The deployment: our ASGI application unchanged, in each replica.

    serve run deploy/ray/serve.yaml                             what stands in the file
    serve run deploy.ray.app:build min_replicas=2 gpus=1        the same, from the command line

A replica is what `gptoss serve` is, with its model, engine, cache and queue; Ray starts, ends and watches
them, takes requests at one address, and starts more while much is under way.  Settings are those of
`gptoss serve`, and GPTOSS_… variables of Ray's nodes count too.

    429        is the replica's own: Ray queues nothing that a replica would refuse
    hang-up    Ray tells the replica, which stops computing
    draining   a replica that is to end gets no new requests, and its answers end (at most --grace)
    death      of an engine: check_health fails, and Ray starts another replica; of the process: likewise
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
"""Requests beside those that a replica's engine has room for: for other endpoints, and to be refused."""


class Arguments(BaseModel):
    """
    settings         of `gptoss serve`, as in its settings file: {"model": "openai/gpt-oss-20b"}
    gpus, cpus       of one replica
    target_requests  under way and waiting, for one replica: more start another.  By default, as many as
                     are computed together (max-running)
    upscale_seconds, downscale_seconds   that there must be more, or fewer, before anything is done
    look_back_seconds                    over which their number is averaged
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
        """Ray calls it when the application has come to its end."""
        if hasattr(self, "_made") and (others := self._made.assembled.others) is not None:
            others.close()

    def check_health(self) -> None:
        if self._made.worker.died is not None:
            raise RuntimeError("the engine died")


def build(args: Arguments) -> Application:
    """For Ray."""
    settings = read(args.settings)  # so that a wrong one is told here, and not by each replica
    most = args.max_replicas or args.min_replicas
    if most > 1 and not isinstance(settings.store, str):
        log.warning(
            "stored responses are found at the replica that made them; with a database as store, at all"
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
