"""Requests to POST /v1/chat/completions for tests, and functions that read its streams."""

import json

HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Gets the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chunks_of(server, **body):
    """All `data:` lines of a stream, parsed; the last one stays text."""
    with server.http.stream(
        "POST", "/v1/chat/completions", json={"messages": HI, "stream": True, **body}
    ) as r:
        assert r.status_code == 200, r.read()
        assert r.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in r.iter_lines() if line]
    data = [line.removeprefix("data: ") for line in lines if not line.startswith(":")]
    assert data[-1] == "[DONE]"
    return [json.loads(each) for each in data[:-1]]


def joined(chunks, index=0):
    """The message that a client assembles from the deltas of one choice."""
    whole = {"content": "", "reasoning": "", "calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            whole["content"] += delta.get("content") or ""
            whole["reasoning"] += delta.get("reasoning") or ""
            for part in delta.get("tool_calls", ()):
                if "id" in part:
                    assert part["index"] == len(whole["calls"])
                    whole["calls"].append(
                        {"id": part["id"], "name": part["function"]["name"], "arguments": ""}
                    )
                whole["calls"][part["index"]]["arguments"] += part["function"]["arguments"]
            whole["finish"] = choice["finish_reason"]
    return whole
