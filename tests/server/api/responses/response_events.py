"""Requests to POST /v1/responses for tests, and functions that read and check its streams."""

import json
from typing import get_args

from openai._models import construct_type_unchecked
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

EVENT = TypeAdapter(ResponseStreamEvent)
KINDS = {
    get_args(event.model_fields["type"].annotation)[0] for event in get_args(get_args(ResponseStreamEvent)[0])
}

ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


def ask(server, expect=200, path="/v1/responses", **body):
    """Send a request.  Returns the parsed answer, which the SDK's type must accept."""
    answer = server.http.post(path, json={"input": "hi", **body})
    assert answer.status_code == expect, answer.text
    whole = answer.json()
    if expect == 200 and path == "/v1/responses":
        Response.model_validate(whole)
    return whole


def events_of(server, **body):
    """All events of a stream, which the SDK's types must accept."""
    body = {"input": "hi", "stream": True, **body}
    with server.http.stream("POST", "/v1/responses", json=body) as r:
        assert r.status_code == 200, r.read()
        assert r.headers["content-type"].startswith("text/event-stream")
        return parsed(r.iter_lines())


def parsed(lines):
    events = []
    name = None
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            assert event["type"] == name
            events.append(event)
    check(events)
    return events


def check(events):
    """Check the rules that every stream of responses follows."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        assert event["type"] in KINDS
        EVENT.validate_python(event)
        assert construct_type_unchecked(value=event, type_=ResponseStreamEvent).type == event["type"]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in ("response.completed", "response.incomplete", "response.failed")
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    if events[-1]["type"] != "response.failed":
        assert joined(events) == events[-1]["response"]["output"]


def joined(events):
    """The output that a client assembles from the deltas; it must equal that of the `done` events."""
    output = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(output)
            output.append(json.loads(json.dumps(event["item"])))
            assert event["item"]["status"] == "in_progress"
            continue
        if "output_index" not in event:
            continue
        item = output[event["output_index"]]
        assert event["output_index"] == len(output) - 1
        assert event.get("item_id", item["id"]) == item["id"]
        match kind:
            case "content_part.added":
                assert event["content_index"] == len(item["content"])
                item["content"].append(
                    dict(event["part"], **({"logprobs": []} if "logprobs" in event["part"] else {}))
                )
            case "reasoning_summary_part.added":
                item["summary"].append(dict(event["part"]))
            case "output_text.delta" | "reasoning_text.delta":
                part = item["content"][event["content_index"]]
                part["text"] += event["delta"]
                if "logprobs" in event:
                    part["logprobs"] = [*part["logprobs"], *event["logprobs"]]
            case "reasoning_summary_text.delta":
                item["summary"][event["summary_index"]]["text"] += event["delta"]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "custom_tool_call_input.delta":
                item["input"] += event["delta"]
            case "output_text.done" | "reasoning_text.done":
                assert event["text"] == item["content"][event["content_index"]]["text"]
            case "content_part.done":
                assert event["part"] == item["content"][event["content_index"]]
            case "function_call_arguments.done":
                assert (event["arguments"], event["name"]) == (item["arguments"], item["name"])
            case "custom_tool_call_input.done":
                assert event["input"] == item["input"]
            case "output_item.done":
                done = event["item"]
                item |= {key: done[key] for key in ("status", "encrypted_content") if key in done}
                if item["type"] in ("reasoning", "message", "function_call", "custom_tool_call"):
                    assert item == done
                output[event["output_index"]] = done
    return output


def shape(output):
    """The contents of items, without ids."""
    said = []
    for item in output:
        match item["type"]:
            case "reasoning" | "message":
                text = "".join(part["text"] for part in item["content"])
                said.append((item.get("phase") or item["type"], text))
            case "function_call":
                said.append((item.get("namespace"), item["name"], item["arguments"]))
            case "custom_tool_call":
                said.append((item["name"], item["input"]))
            case kind:
                said.append((kind, item.get("action") or item.get("operation")))
    return said
