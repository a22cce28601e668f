"""The bodies of all requests together have limited memory, and who sends without a pause is not refused."""

import json
import random
from contextlib import ExitStack

import pytest

from server.errors import BodyUnfit
from server.front import body_memory
from server.front.body_memory import MIN_BODIES, SMALL_BYTES, ArrivingBody, BodyMemory
from server.settings import Settings
from tests.server.fakes import Pause, final, live
from tests.server.test_endings import HI, connect, drained, request_bytes

CHAT = "/v1/chat/completions"
LIMIT = 10 * SMALL_BYTES


class Body(ArrivingBody):
    arriving, refused = True, False

    def refuse(self):
        self.refused = True


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(body_memory, "ALL_BODIES_BYTES", LIMIT)
    return BodyMemory(1)


def test_the_body_that_arrives_for_longest_makes_room(memory):
    small, first, second, third = (Body() for _ in range(4))
    memory.add(small, SMALL_BYTES)
    for body, size in ((first, 4), (second, 4), (third, 4)):
        memory.add(body, size * SMALL_BYTES)
    assert [body.refused for body in (small, first, second, third)] == [False, True, False, False]
    assert memory.bytes == 9 * SMALL_BYTES


def test_a_body_that_has_arrived_stays_and_the_newest_is_refused(memory):
    waiting = [Body() for _ in range(5)]
    for body in waiting:
        memory.add(body, 2 * SMALL_BYTES)
        body.arriving = False
    with pytest.raises(BodyUnfit) as refused:
        memory.add(Body(), SMALL_BYTES + 1)
    assert refused.value.error.status == 429
    memory.add(Body(), SMALL_BYTES)  # a small one always has room
    assert not any(body.refused for body in waiting)
    for body in waiting:
        memory.release(body)
    memory.add(Body(), 9 * SMALL_BYTES)


def test_the_bytes_are_those_of_the_bodies_whatever_comes_and_goes(memory):
    rng = random.Random(4)
    bodies = [Body() for _ in range(30)]
    for _ in range(3000):
        body = rng.choice(bodies)
        try:
            if rng.random() < 0.7 and not body.refused:
                memory.add(body, rng.randrange(2 * SMALL_BYTES))
                body.arriving = rng.random() < 0.8
            else:
                memory.release(body)
                body.refused = False
        except BodyUnfit:
            assert body.held == 0
        assert memory.bytes == sum(each.held for each in bodies)
        assert memory.bytes <= LIMIT + 30 * SMALL_BYTES


def test_a_few_bodies_of_the_maximum_size_always_have_room(monkeypatch):
    monkeypatch.setattr(body_memory, "ALL_BODIES_BYTES", 1)
    memory = BodyMemory(10**6)
    for body in [Body() for _ in range(MIN_BODIES)]:
        memory.add(body, 10**6)


def test_a_client_that_sends_its_body_is_served_while_others_stop_in_the_middle(tiny_tokenizer, monkeypatch):
    """A hundred clients that stopped after 7 MiB each took 700 MB, a thousand would have taken 7 GB."""
    monkeypatch.setattr(body_memory, "ALL_BODIES_BYTES", 1)  # so that MIN_BODIES have room
    size = 4 * SMALL_BYTES
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    unfinished = f"{head}content-length: {size + 1}\r\n\r\n".encode() + b" " * size
    with ExitStack() as opened:
        settings = Settings(max_body_bytes=size + 1000)
        server = opened.enter_context(live(tiny_tokenizer, final("ok"), settings=settings))
        stopped = []
        for _ in range(MIN_BODIES + 2):
            client = opened.enter_context(connect(server))
            client.sendall(unfinished)
            stopped.append(client)
        for client in stopped[:2]:
            answer = drained(client)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after" in answer
        for _ in range(20):
            whole = json.dumps({**HI, "user": "x" * size}).encode()
            kind = {"content-type": "application/json"}
            assert server.http.post(CHAT, content=whole, headers=kind).status_code == 200
        assert drained(stopped[2]).startswith(b"HTTP/1.1 429 ")  # for the first of the twenty
        stopped[3].sendall(b" ")
        assert stopped[3].recv(100).startswith(b"HTTP/1.1 400 ")  # it had only stopped: spaces are no JSON


def test_a_body_counts_only_until_its_answer_begins(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(body_memory, "ALL_BODIES_BYTES", 1)
    size = 4 * SMALL_BYTES
    settings = Settings(max_body_bytes=size + 1000)
    with ExitStack() as opened:
        server = opened.enter_context(live(tiny_tokenizer, [Pause(30)], settings=settings))
        for i in range(2 * MIN_BODIES):
            client = opened.enter_context(connect(server))
            client.sendall(request_bytes(CHAT, user="x" * size, stream=True))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            assert len(server.worker.open) == i + 1
