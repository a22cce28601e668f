"""A local Ray cluster with Ray Serve and the demo model, and a client."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.sticky:middlewares",
    # So that a test need not wait for the usual ten seconds.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_worker_niceness": "0",  # else 15, and on a busy machine nothing starts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}
SETTINGS = {"threads": 1, "max-running": 8, "max-queued": 12, "date": "2025-06-28", "grace": 60}


class Cluster:
    """
    url   of the one address
    http  somebody who asks there
    """

    def __init__(self, url: str):
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None))

    def run(self, **arguments) -> None:
        """Deploy, and wait until it answers."""
        from ray import serve

        from deploy.ray.app import Arguments, build

        serve.run(build(Arguments(settings=SETTINGS, **arguments)), name="gptoss", route_prefix="/")
        self.wait(lambda: self.running() == arguments.get("min_replicas", 1))

    def replicas(self) -> dict[str, int]:
        """State → number of replicas."""
        from ray import serve

        deployed = serve.status().applications["gptoss"].deployments["gptoss"]
        return {
            str(getattr(state, "value", state)): count for state, count in deployed.replica_states.items()
        }

    def running(self) -> int:
        return self.replicas().get("RUNNING", 0)

    def pids(self) -> list[int]:
        """Ids of the replicas' processes."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _command(path).startswith("ray::ServeReplica:gptoss")
        ]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def wait(self, what, seconds=90.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"it did not come: {self.replicas()}"
            time.sleep(0.1)

    def figure(self, name: str, session: str) -> float:
        """The value of a metric, from the replica that has the session."""
        lines = self.http.get("/metrics", headers={"x-session-id": session}).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _command(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # it has just ended
        return ""


@contextmanager
def started() -> Iterator[Cluster]:
    import ray
    from ray import serve

    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield Cluster(f"http://127.0.0.1:{port}")
        serve.shutdown()
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
