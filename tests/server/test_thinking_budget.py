"""`--thinking-budget` limits the reasoning of requests that have no limit of their own."""

import pytest

from server.settings import Settings
from tests.server.fakes import final, live

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}
HEADER = "<|channel|>analysis<|message|>"


@pytest.fixture(scope="module")
def server(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!"), settings=Settings(thinking_budget=5)) as server:
        yield server


def thoughts(server, **body):
    """Number of tokens of chain of thought until it is closed; None: no limit."""
    server.http.post(CHAT, json=HI | body).raise_for_status()
    constraint = server.worker.requests[-1].constraint
    if constraint is None:
        return None
    ids = server.said(HEADER + 40 * "h")
    for place, id in enumerate(ids):
        mask = constraint.mask()
        if mask is not None and not mask.cast("B")[id // 8] >> id % 8 & 1:
            return place - len(server.said(HEADER))
        constraint.accept(id)
    return None


def test_a_request_that_names_none_has_the_servers(server):
    assert thoughts(server) == 5


def test_a_request_that_names_one_has_its_own(server):
    assert thoughts(server, thinking_token_budget=9) == 9
    assert thoughts(server, thinking_token_budget=2) == 2


def test_effort_and_budget_go_together(server):
    assert thoughts(server, reasoning_effort="high") == 5


def test_without_a_chain_of_thought_there_is_nothing_to_limit(server):
    server.http.post(CHAT, json=HI | {"reasoning_effort": "none"}).raise_for_status()
    assert server.worker.requests[-1].constraint is None


def test_raw_prompts_are_free(server):
    server.http.post("/v1/completions", json={"prompt": "hi"}).raise_for_status()
    assert server.worker.requests[-1].constraint is None


def test_by_default_there_is_no_limit(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!")) as server:
        assert thoughts(server) is None
