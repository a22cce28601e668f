"""Which Host headers are allowed, and how many requests a caller may send in a minute."""

import pytest

from server.front.rate_limiter import RateLimiter
from server.settings import Settings
from tests.server.fakes import final, live
from tests.server.test_endings import connect, drained


def get(server, path, host):
    head = f"GET {path} HTTP/1.1\r\n" + (f"host: {host}\r\n" if host is not None else "")
    with connect(server) as client:
        client.sendall(f"{head}connection: close\r\n\r\n".encode())
        return drained(client)


HOSTS = {
    "localhost": True,
    "LOCALHOST:8000": True,
    "a.localhost": True,
    "127.0.0.1:1": True,
    "[::1]:8000": True,
    "192.168.1.7": True,
    "given.example": True,
    "named.example.:80": True,
    None: True,
    "evil.example": False,
    "localhost.evil.example:8000": False,
    "127.0.0.1.evil.example": False,
    "[evil": False,
}


@pytest.mark.parametrize(("host", "allowed"), HOSTS.items())
def test_without_keys_a_request_comes_under_a_name_of_this_server(tiny_tokenizer, host, allowed):
    settings = Settings(host="given.example", allowed_host=("Named.example",))
    with live(tiny_tokenizer, final("ok"), settings=settings) as server:
        answer = get(server, "/v1/models", host)
    assert (b" 200 " in answer[:20], b" 421 " in answer[:20]) == (allowed, not allowed)


def test_two_host_headers_are_a_400(tiny_tokenizer):
    """Which of them a proxy looked at, nobody knows."""
    with live(tiny_tokenizer, final("ok")) as server:
        assert b" 400 " in get(server, "/v1/models", "localhost\r\nhost: localhost")[:20]


def test_probes_and_holders_of_keys_may_use_any_name(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok"), settings=Settings(api_key=("key",))) as server:
        assert b" 200 " in get(server, "/health", "pod.example")[:20]
        asked = {"host": "proxy.example", "authorization": "Bearer key"}
        assert server.http.get("/v1/models", headers=asked).status_code == 200
    with live(tiny_tokenizer, final("ok"), settings=Settings(allowed_host=("*",))) as server:
        assert b" 200 " in get(server, "/v1/models", "evil.example")[:20]


def test_no_answer_sends_anybody_to_a_host_that_the_client_named(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        for path in ("/health/", "/v1/models/", "/v1/chat/completions/", "/metrics/"):
            answer = server.http.get(path, headers={"host": "evil.localhost"})
            assert answer.status_code in (404, 405), path
            assert "location" not in answer.headers


def test_no_page_of_ours_runs_scripts_from_elsewhere(tiny_tokenizer):
    with live(tiny_tokenizer, final("ok")) as server:
        for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
            assert "https://" not in server.http.get(path).text


# Requests a minute


def test_a_key_has_its_requests_a_minute_and_others_have_theirs(tiny_tokenizer):
    settings = Settings(api_key=("one", "two"), key_requests_per_minute=3)
    with live(tiny_tokenizer, final("ok"), settings=settings) as server:

        def ask(key, path="/v1/models"):
            return server.http.get(path, headers={"authorization": f"Bearer {key}"})

        assert [ask("one").status_code for _ in range(3)] == [200] * 3
        refused = ask("one")
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 20
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert ask("two").status_code == 200
        assert [ask("wrong").status_code for _ in range(9)] == [401] * 9
        assert ask("one", "/health").status_code == 200


def test_a_bucket_fills_at_its_rate_and_not_over_its_rim():
    now = 0.0
    rates = RateLimiter(6, lambda: now)
    assert [rates.take("a") for _ in range(7)] == [0] * 6 + [10]
    now = 9.5
    assert rates.take("a") == 1
    now = 10.0
    assert rates.take("a") == 0
    now = 1e6
    assert [rates.take("a") for _ in range(7)] == [0] * 6 + [10]
    assert [RateLimiter(None).take("a") for _ in range(100)] == [0] * 100
