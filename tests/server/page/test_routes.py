"""The pages' routes send the files unchanged, with a strict policy, and JSON."""

import re

import httpx
import pytest

from server.page import FILES, MAX_CHARACTERS
from server.settings import Settings
from tests.server.fakes import final, live

KEYED = Settings(date="2025-06-28", api_key=("secret",))
ASSETS = sorted(path.name for path in FILES.iterdir() if path.suffix != ".html")


@pytest.fixture
def server(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi")) as running:
        yield running


def test_a_browser_gets_the_page_and_a_program_that_asks_for_json_gets_an_index(server):
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for headers in (browser, {}):
        page = server.http.get("/", headers=headers)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "accept"
        assert "<!doctype html>" in page.text
    index = server.http.get("/", headers={"accept": "application/json"})
    assert index.headers["vary"] == "accept"
    for name, path in index.json().items():
        if name not in ("object", "chat_completions"):
            assert server.http.get(path).status_code == 200, path


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/page/{name}" for name in ASSETS)])
def test_every_file_lets_nothing_in_from_elsewhere(server, path):
    response = server.http.get(path)
    assert response.status_code == 200
    policy = dict(
        part.strip().partition(" ")[::2] for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert "script-src" not in policy
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in response.headers
    assert server.http.head(path).status_code == 200


def test_what_has_not_changed_is_not_sent_again(server):
    first = server.http.get("/page/main.js")
    again = server.http.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


def test_the_page_weighs_at_most_60_kb():
    weight = sum(path.stat().st_size for path in FILES.iterdir() if not path.name.startswith("docs."))
    assert weight <= 60 * 1024


def test_no_file_names_another_origin():
    """Except for the namespace of SVG, which is not fetched."""
    for path in FILES.iterdir():
        found = set(
            re.findall(
                r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", re.sub(r"(?m)^\s*//.*$|//\s.*$", "", path.read_text())
            )
        )
        assert found <= {"http://www.w3.org/2000/svg"}, (path.name, found)


def test_no_script_has_html_of_its_own_or_runs_text():
    for path in FILES.glob("*.js"):
        text = path.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        assert ("parseFromString" in text) == (path.name == "markdown.js")


def test_markdown_comes_back_in_the_order_of_the_texts(server):
    found = server.http.post("/page/markdown", json={"texts": ["*a*", "b\n\nc\n"]}).json()["texts"]
    assert found[0] == {"blocks": ["<p><em>a</em></p>\n"], "settled": 0, "settled_lines": 0}
    assert found[1] == {"blocks": ["<p>b</p>\n", "<p>c</p>\n"], "settled": 1, "settled_lines": 2}


@pytest.mark.parametrize(
    "texts",
    [[], ["a" * (MAX_CHARACTERS + 1)], ["a" * (MAX_CHARACTERS // 2 + 1)] * 2, ["a"] * 300, "a", [1], None],
)
def test_more_markdown_than_is_allowed_is_refused(server, texts):
    response = server.http.post("/page/markdown", json={"texts": texts})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("texts")


def test_a_body_that_is_much_too_long_or_no_json_is_refused(server):
    url = "/page/markdown"
    assert server.http.post(url, json={"texts": ["a" * 500_000]}).status_code == 413
    for body in ("", "{", "[" * 10_000, '{"texts": ["\\ud83d"]}', '{"texts": [NaN]}'):
        headers = {"content-type": "application/json"}
        assert server.http.post(url, content=body, headers=headers).status_code == 400, body[:20]
    most = {"texts": ["\u00e9" * MAX_CHARACTERS]}
    assert server.http.post(url, json=most).json()["texts"][0]["blocks"] == [
        f"<p>{'é' * MAX_CHARACTERS}</p>\n"
    ]


def test_a_form_of_another_page_cannot_have_markdown_rendered(server):
    """A browser sends such a form without a preflight request; for JSON it would need one."""
    body = '{"texts": ["a"]}'
    assert (
        server.http.post("/page/markdown", content=body, headers={"content-type": "text/plain"}).status_code
        == 400
    )


def test_the_files_need_no_key_and_all_else_does(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi"), settings=KEYED) as server:
        for path in ("/", "/docs", "/page/main.js"):
            assert server.http.get(path).status_code == 200
            assert "secret" not in server.http.get(path).text
        for path in (
            "/page/server",
            "/metrics",
            "/openapi.json",
            "/page/",
            "/page/none.js",
            "/page/../metrics",
        ):
            assert httpx.get(server.url + path).status_code == 401, path
        assert server.http.post("/page/markdown", json={"texts": ["a"]}).status_code == 401
        key = {"authorization": "Bearer secret"}
        assert server.http.post("/page/markdown", json={"texts": ["a"]}, headers=key).status_code == 200
        about = server.http.get("/page/server", headers=key)
        assert "secret" not in about.text
        assert "YOUR_KEY" in about.text


def test_a_name_that_is_not_the_servers_gets_no_page(server):
    """DNS rebinding: the name of another site resolves to this server."""
    for path in ("/", "/page/main.js", "/page/server"):
        assert server.http.get(path, headers={"host": "evil.example"}).status_code == 421


def test_neither_files_nor_markdown_count_towards_a_keys_rate(tiny_tokenizer):
    settings = Settings(date="2025-06-28", api_key=("secret",), key_requests_per_minute=1)
    with live(tiny_tokenizer, final("Hi"), settings=settings) as server:
        key = {"authorization": "Bearer secret"}
        for _ in range(3):
            assert server.http.get("/page/main.js").status_code == 200
            found = server.http.post("/page/markdown", json={"texts": ["a"]}, headers=key)
            assert found.status_code == 200
        statuses = [server.http.get("/v1/models", headers=key).status_code for _ in range(2)]
        assert statuses == [200, 429]


def test_what_is_served_is_told_from_the_summary(server):
    found = server.http.get("/page/server").json()
    assert (found["model"], found["max_context"]) == ("tiny", 4096)
    programs = {each["name"]: each for each in found["snippets"]}
    assert programs["curl"]["needs"] is None
    assert '"model": "tiny"' in programs["curl"]["parts"][0][1]


def test_without_the_page_there_is_none(tiny_tokenizer):
    with live(tiny_tokenizer, final("Hi"), settings=Settings(date="2025-06-28", page=False)) as server:
        for path in ("/", "/docs", "/page/main.js", "/page/server"):
            response = server.http.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")
        assert server.http.post("/page/markdown", json={"texts": ["a"]}).status_code == 404
        assert server.http.get("/openapi.json").status_code == 200


def test_the_pages_routes_are_no_part_of_the_api(server):
    assert not [
        path
        for path in server.http.get("/openapi.json").json()["paths"]
        if path.startswith("/page") or path == "/"
    ]
