"""Requests to POST /v1/messages for tests, and functions that read its streams."""

import json

HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "name": "get_weather",
    "description": "Gets the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def post(server, path="/v1/messages", headers=None, **body):
    return server.http.post(
        path, json={"model": "tiny", "max_tokens": 500, "messages": HI, **body}, headers=headers
    )


def events_of(server, **body):
    """The events of a stream, with their names checked."""
    json_body = {"model": "tiny", "max_tokens": 500, "messages": HI, "stream": True, **body}
    with server.http.stream("POST", "/v1/messages", json=json_body) as r:
        assert r.status_code == 200, r.read()
        assert r.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in r.iter_lines() if line and not line.startswith(":")]
    events = []
    for name, data in zip(lines[::2], lines[1::2], strict=True):
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def joined(events):
    """The message that a client assembles; blocks must follow each other."""
    message = dict(events[0]["message"])
    assert events[0]["type"] == "message_start"
    blocks, open_block = [], None
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
                assert open_block == len(blocks)
                blocks.append({**event["content_block"], "json": ""})
            case "content_block_delta":
                assert event["index"] == open_block
                delta = dict(event["delta"])
                kind = delta.pop("type")
                field = {
                    "input_json_delta": "json",
                    "signature_delta": "signature",
                    "text_delta": "text",
                }.get(kind, "thinking")
                (text,) = delta.values()
                blocks[-1][field] += text
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
            case "message_delta":
                message.update(event["delta"], usage=event["usage"])
    assert open_block is None
    assert events[-1]["type"] == "message_stop"
    for block in blocks:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text or "{}")
    return {**message, "content": blocks}


def told_of(server, **body):
    """The error of a refused request, with its format checked."""
    answer = post(server, **body)
    assert answer.status_code >= 400, answer.text
    error = answer.json()
    assert error.keys() == {"type", "error", "request_id"}
    assert error["type"] == "error"
    assert error["error"].keys() - {"details"} == {"type", "message"}
    assert error["request_id"] == answer.headers["request-id"]
    return answer.status_code, error["error"]["type"], error["error"]["message"]
