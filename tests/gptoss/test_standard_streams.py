"""A server starts, answers and ends as usual if its stdout or stderr is closed, full, or has no reader."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.gptoss.test_command_line import ROOT, checkpoint, environment
from tests.server.test_endings import wait_for

__all__ = ["checkpoint"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "redirection",
    [
        pytest.param(">/dev/full 2>&- <&-", id="full and closed"),
        pytest.param("2>&1 | true", id="no reader", marks=pytest.mark.exhaustive),
    ],
)
def test_nobody_has_to_read_what_a_server_says(checkpoint, redirection):
    port = free_port()
    serve = f"{sys.executable} -m gptoss serve --model {checkpoint} --backend reference --port {port}"
    # The shell tells the server's own exit code through a file descriptor that is nobody's standard stream.
    reading, writing = os.pipe()
    shell = f"{{ {serve} {writing}>&-; echo $? >&{writing}; }} {redirection}"
    process = subprocess.Popen(
        ["bash", "-c", shell], cwd=ROOT, env=environment(), pass_fds=[writing], start_new_session=True
    )
    os.close(writing)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_for(lambda: answers(url), 60)
        for _ in range(3):
            assert httpx.get(url + "/v1/models", timeout=30).status_code == 200
        server = int(
            subprocess.check_output(["pgrep", "-g", str(process.pid), "-f", "gptoss serve --model"]).split()[
                -1
            ]
        )
        os.kill(server, signal.SIGTERM)
        assert os.read(reading, 100) == b"0\n"
    finally:
        os.close(reading)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url):
    time.sleep(0.05)
    try:
        return httpx.get(url + "/health", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def test_a_second_signal_ends_the_process_whatever_it_is_doing():
    """It waited for the event loop, and then for all threads of a pool."""
    code = """
import asyncio, socket, time
from gptoss.serve import Server

class Worker:
    died = None
    async def drain(self, seconds):
        await asyncio.sleep(seconds)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, time.sleep, 60)
        loop.call_later(0.5, work)
        await receive()

def work():
    print("busy", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass

listener = socket.create_server(("127.0.0.1", 0))
Server(app, Worker(), 60, 10, "url", "started").run(sockets=[listener])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert [process.stdout.readline().strip() for _ in range(2)] == ["started", "busy"]
        process.send_signal(signal.SIGTERM)
        time.sleep(1)  # the first has to have arrived, or the two are one
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
