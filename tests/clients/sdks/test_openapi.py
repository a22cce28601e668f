"""schemathesis: valid and invalid requests, generated from /openapi.json, cause no server error."""

import json
import subprocess
import sys
import urllib.request

import pytest

from tests.clients.conftest import scripted, serving
from tests.clients.packages import require

require("schemathesis")
pytestmark = pytest.mark.timeout(900)


def schemathesis(folder, *arguments):
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    command += [*arguments, "--checks", "not_a_server_error", "--suppress-health-check", "all", "--seed", "1"]
    command += ["--request-timeout", "60", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=folder)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


def ask(server, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_no_request_of_the_schema_is_a_server_error(tmp_path):
    """The server is small, so that an answer of any length is a short one."""
    with serving("--max-context", "256", "--max-queued", "8") as server:
        phases = ["--max-examples", "15", "--phases", "coverage,fuzzing"]
        schemathesis(tmp_path, server.url + "/openapi.json", *phases)


def test_nor_is_one_about_a_response_or_a_conversation_that_is_there(tmp_path):
    """Made up ids are never found: here the schema knows those of two that are."""
    with scripted(tmp_path, [{"when": "", "final": "Hello", "thought": "Hm."}]) as server:
        response = ask(server, "/v1/responses", {"input": "hi"})["id"]
        conversation = ask(server, "/v1/conversations", {"items": [{"role": "user", "content": "hi"}]})["id"]
        item = ask(server, f"/v1/conversations/{conversation}/items")["data"][0]["id"]
        schema = ask(server, "/openapi.json")
        for path, operations in schema["paths"].items():
            ids = {"id": response if "responses" in path else conversation, "item_id": item}
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] in ids:
                        parameter["schema"]["enum"] = [ids[parameter["name"]]]
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        which = ["--include-path-regex", "^/v1/(responses|conversations)/", "--exclude-method", "DELETE"]
        phases = ["--max-examples", "8", "--phases", "coverage,fuzzing"]
        schemathesis(tmp_path, "schema.json", "--url", server.url, *which, *phases)
        assert ask(server, f"/v1/responses/{response}")["status"] == "completed"


def test_nor_is_what_goes_on_from_what_it_made(tmp_path):
    """By the links of the schema; with DELETE, and in any order."""
    with scripted(tmp_path, [{"when": "", "final": "Hello"}]) as server:
        which = ["--include-path-regex", "^/v1/(responses|conversations)"]
        phases = ["--max-examples", "8", "--phases", "stateful"]
        schemathesis(tmp_path, server.url + "/openapi.json", *which, *phases)
