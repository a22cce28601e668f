"""The snippets are correct, and say what the server lacks for them."""

import ast
import json
import shlex
import tomllib

import pytest

from server.page.snippets import CHAT, MESSAGES, RESPONSES, snippets

NAMES = ["tiny", 'od"d', "it's", "openai/gpt-oss-20b"]


def texts(name, model, needs_key):
    found = {
        each["name"]: each["parts"] for each in snippets(model, 4096, needs_key, {CHAT, RESPONSES, MESSAGES})
    }
    return [text.replace("{origin}", "http://127.0.0.1:8000") for _, text in found[name]]


@pytest.mark.parametrize("needs_key", [False, True])
@pytest.mark.parametrize("model", NAMES)
def test_each_is_what_its_reader_can_read(model, needs_key):
    curl = shlex.split(texts("curl", model, needs_key)[0])
    assert json.loads(curl[curl.index("-d") + 1])["model"] == model
    assert ("authorization: Bearer YOUR_KEY" in curl) == needs_key
    calls = [
        each
        for each in ast.walk(ast.parse(texts("Python", model, needs_key)[0]))
        if isinstance(each, ast.keyword)
    ]
    assert model in [each.value.value for each in calls if each.arg == "model"]
    settings = tomllib.loads(texts("Codex", model, needs_key)[0])
    assert settings["model"] == model
    assert settings["model_providers"]["gptoss"]["base_url"] == "http://127.0.0.1:8000/v1"
    assert ("env_key" in settings["model_providers"]["gptoss"]) == needs_key
    if "$" not in model:
        assert shlex.split(texts("Claude Code", model, needs_key)[0])[-1] == model


def test_a_program_says_what_it_needs_and_is_not_there():
    needs = {each["name"]: each["needs"] for each in snippets("tiny", 4096, False, {CHAT})}
    assert needs == {
        "curl": None,
        "Python": None,
        "JavaScript": None,
        "Codex": RESPONSES,
        "Claude Code": MESSAGES,
    }
