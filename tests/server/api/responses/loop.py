"""A client of POST /v1/responses, and a loop with one call, for a scripted model."""

import time

import httpx

from tests.server.api.responses.response_events import ADD
from tests.server.fakes import call, final

SPELLED = '{ "a" :1 }'
"""Arguments in an unusual format, so that rendering the same object gives other tokens."""

LOOP = [call("add", SPELLED, "I add."), final("It is 2.", "So."), final("Bye.")]
SEAL = ["reasoning.encrypted_content"]
ASK = {"role": "user", "content": "1 and 1?"}
THANKS = {"role": "user", "content": "Thanks"}


class Client:
    def __init__(self, server):
        self.server = server
        self.http = httpx.Client(base_url=server.url, timeout=60)

    def ask(self, expect=200, headers=None, **body):
        body = {"tools": [ADD], **body}
        answer = self.http.post("/v1/responses", json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path, expect=200, **options):
        answer = self.http.get(path, **options)
        assert answer.status_code == expect, answer.text
        return answer.json()


def prompts(client):
    return [prompt.split("<|end|>", 2)[2] for prompt in client.server.script.prompts]


def result(response, text="2"):
    return {"type": "function_call_output", "call_id": response["output"][-1]["call_id"], "output": text}


def references(items):
    return [{"type": "item_reference", "id": item["id"]} for item in items]


def until(true, seconds=20.0):
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
