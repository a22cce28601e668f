"""Any rank but 0: a process that rank 0 starts.  It computes the steps that rank 0 sends, and ends with rank
0.

python -m gptoss.ranks.member 3      # the file descriptor of its channel
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from engine import memory
from gptoss.ranks.channel import HEARTBEAT_SECONDS, HUNG_SECONDS, Channel, Message
from gptoss.ranks.job import Job
from model import device as devices
from model.parallel.lead import follow
from server import logs

log = logging.getLogger("gptoss.ranks")

DIED = 70


class Mailbox:
    """The messages of rank 0, in order.

    One thread receives them, and ends this process if rank 0 has ended.  Another sends heartbeats, and ends
    both processes if rank 0 hangs.
    """

    def __init__(self, channel: Channel):
        self._channel = channel
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._last_heard = time.monotonic()
        for work in (self._receive, self._send_heartbeats):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def __iter__(self) -> Iterator[Message]:
        """The messages before the one that ends this rank."""
        while (message := self._messages.get()).get("do") != "end":
            yield message

    def _receive(self) -> None:
        with suppress(EOFError):
            while True:
                message = self._channel.receive()
                self._last_heard = time.monotonic()
                if message:
                    self._messages.put(message)
        os._exit(DIED)  # rank 0 is gone, whatever the other thread waits for

    def _send_heartbeats(self) -> None:
        last_check = time.monotonic()
        while True:
            self._channel.send_heartbeat()
            time.sleep(HEARTBEAT_SECONDS)
            now = time.monotonic()
            if now - last_check > HUNG_SECONDS / 2:  # this process itself was suspended, so start anew
                self._last_heard = now
            last_check = now
            if now - self._last_heard > HUNG_SECONDS:
                parent = os.getppid()
                log.critical(
                    "rank 0 (process %d) hangs: nothing was heard from it for %g s", parent, HUNG_SECONDS
                )
                if parent > 1:  # otherwise rank 0 has ended
                    os.kill(parent, signal.SIGKILL)  # so that its clients' connections are closed
                os._exit(DIED)


def main(descriptor: int) -> int:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            each, signal.SIG_IGN
        )  # a signal to the process group is for rank 0, which then ends this
    channel = Channel(socket.socket(fileno=descriptor))
    messages = iter(Mailbox(channel))
    try:
        job = Job.read(next(messages)["job"])
        logs.configure("warning" if job.log_level == "info" else job.log_level, job.log_format)
        channel.send({"here": job.rank})
        group = job.connect()
        model = job.build(group)
        channel.send({"loaded": model.weight_bytes})
        next(messages)  # comes when all ranks have loaded, so that the free memory no longer changes
        device = devices.find(job.device)
        free = devices.free_bytes(device) if device.type == "cuda" else memory.free_host_bytes()
        channel.send({"free": free})
        follow(model, group, messages)
    except Exception as error:
        log.debug("this rank failed", exc_info=True)
        with suppress(OSError):
            channel.send({"failed": " ".join(str(error).split())[:2000] or type(error).__name__})
        return DIED
    return 0


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # without torch's clean-up, which may wait for ranks that have ended
