"""Errors of the web framework itself tell the client what to do."""

import pytest

from tests.server.fakes import final, live


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("/v1/response", "/v1/response: there is no such endpoint; did you mean /v1/responses?"),
        (
            "/v1/chat/completion",
            "/v1/chat/completion: there is no such endpoint; did you mean /v1/chat/completions?",
        ),
        ("/v1/embeddings", "there is no such endpoint"),
    ],
)
def test_a_path_that_is_nearly_right_is_put_right(asked, told, tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi!")) as server:
        answer = server.http.post(asked, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == told
