"""Any rank but 0: a process that rank 0 starts, that does what rank 0 says, and ends with it.

python -m gptoss.ranks.member 3      # the descriptor of its channel
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
from gptoss.ranks.channel import BEAT_SECONDS, HUNG_SECONDS, Channel, Message
from gptoss.ranks.job import Job
from model import device as devices
from model.parallel.lead import follow
from server import logs

log = logging.getLogger("gptoss.ranks")

DIED = 70


class Mailbox:
    """Messages of rank 0, in order.  A thread receives them, says that this process lives, and ends it if
    rank 0 does not."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._heard = time.monotonic()
        for work in (self._receive, self._live):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def __iter__(self) -> Iterator[Message]:
        """Until it is told to end."""
        while (message := self._messages.get()).get("do") != "end":
            yield message

    def _receive(self) -> None:
        with suppress(EOFError):
            while True:
                message = self._channel.receive()
                self._heard = time.monotonic()
                if message:
                    self._messages.put(message)
        os._exit(DIED)  # rank 0 is gone, whatever the other thread waits for

    def _live(self) -> None:
        looked = time.monotonic()
        while True:
            self._channel.beat()
            time.sleep(BEAT_SECONDS)
            now = time.monotonic()
            if now - looked > HUNG_SECONDS / 2:  # it is this process that did not run
                self._heard = now
            looked = now
            if now - self._heard > HUNG_SECONDS:
                parent = os.getppid()
                log.critical(
                    "rank 0 (process %d) hangs: nothing was heard of it for %g s", parent, HUNG_SECONDS
                )
                if parent > 1:  # else it is gone
                    os.kill(parent, signal.SIGKILL)  # its clients hear then that it is over
                os._exit(DIED)


def main(descriptor: int) -> int:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # sent to a whole group, they are for rank 0, which ends us
    channel = Channel(socket.socket(fileno=descriptor))
    messages = iter(Mailbox(channel))
    try:
        job = Job.read(next(messages)["job"])
        logs.configure("warning" if job.log_level == "info" else job.log_level, job.log_format)
        channel.send({"here": job.rank})
        group = job.connect()
        model = job.build(group)
        channel.send({"loaded": model.weight_bytes})
        next(messages)  # all others have loaded too: what is free now stays free
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
    os._exit(code)  # not by way of torch, which may wait for ranks that are gone
