"""Two replicas of the demo behind a real Ray Serve."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")

from tests.scale.cluster import SETTINGS, started

pytestmark = pytest.mark.timeout(500)  # a Ray is started in there, on a machine that may be busy

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
LONG = {"prompt": "a", "max_tokens": 600, "ignore_eos": True, "stream": True, "temperature": 0}
FRANCE = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture(scope="module")
def cluster():
    with started() as cluster:
        cluster.run(min_replicas=2)
        yield cluster


@pytest.fixture
def pool():
    with ThreadPoolExecutor(64) as pool:
        yield pool


def streamed(cluster, session, body=LONG, begun=None):
    """The text of a stream, and whether it was complete."""
    texts = []
    try:
        headers = {"x-session-id": session}
        with cluster.http.stream("POST", COMPLETIONS, json=body, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    return texts, True
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        return texts, False
                    texts.append(event["choices"][0]["text"])
                    if begun is not None:
                        begun.append(session)
    except httpx.HTTPError:
        pass
    return texts, False


def sessions_of_both(cluster):
    """Sessions of each of the two replicas, found by a conversation that only one of them stores."""
    sessions = [f"session-{i}" for i in range(32)]
    kept = cluster.http.post("/v1/conversations", json={}, headers={"x-session-id": sessions[0]}).json()["id"]

    def has_it(session):
        return (
            cluster.http.get(f"/v1/conversations/{kept}", headers={"x-session-id": session}).status_code
            == 200
        )

    one = [each for each in sessions if has_it(each)]
    other = [each for each in sessions if each not in one]
    assert len(one) >= 3
    assert len(other) >= 3
    return one, other


def test_settings_are_those_of_serve_and_a_wrong_one_is_told_before_anything_starts():
    from deploy.ray.app import Arguments, build, read
    from server.settings import SettingsError

    given = {"max-running": 8, "prefix_cache": False, "api-key": ["a", "b"], "grace": 1.5}
    settings = read(given)
    assert (settings.max_running, settings.prefix_cache) == (8, False)
    assert (settings.api_key, settings.grace) == (("a", "b"), 1.5)
    with pytest.raises(SettingsError, match=r"max.running: must be a whole number from 1"):
        build(Arguments(settings={"max-running": 0}))
    with pytest.raises(SettingsError, match=r"there is no setting 'modle'; did you mean model\?"):
        read({"modle": "a"})
    with pytest.raises(ValueError, match="replicas"):
        Arguments(replicas=2)


def test_it_answers_and_streams_as_a_server_does(cluster):
    body = {"messages": [FRANCE], "temperature": 0}
    answer = cluster.http.post(CHAT, json=body)
    (id,) = answer.headers.get_list("x-request-id")
    assert id.startswith("req_")
    whole = answer.json()["choices"][0]["message"]["content"]
    assert whole == "The capital of France is Paris."
    came, text = [], ""
    with cluster.http.stream("POST", CHAT, json=body | {"stream": True}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                came.append(time.monotonic())
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    assert text == whole
    assert len(set(came)) > 5
    assert cluster.http.get("/v1/nowhere").json()["error"]["code"] == "unknown_url"
    assert cluster.http.post(CHAT, json={}).status_code == 400
    assert cluster.http.get("/ready").text == "ok"


@pytest.mark.parametrize("by", ["session-id", "x-session-id", "session_id", "prompt_cache_key", "beginning"])
def test_a_sessions_second_turn_finds_its_prefix(cluster, by):
    """For eight sessions; without sticky sessions, about half would not."""
    for i in range(8):
        name = f"{by}-{i}"
        messages = [{"role": "user", "content": f"My name is {name}. " * 12}]
        body = {"temperature": 0, "max_tokens": 30}
        headers = {by: name} if by.replace("_", "-").endswith("session-id") else {}
        body |= {"prompt_cache_key": name} if by == "prompt_cache_key" else {}
        first = cluster.http.post(CHAT, json=body | {"messages": messages}, headers=headers).json()
        said = first["choices"][0]["message"]
        messages += [{"role": "assistant", "content": said["content"] or ""}, FRANCE]
        second = cluster.http.post(CHAT, json=body | {"messages": messages}, headers=headers).json()
        # What all have in common, the system prompt, is shorter.
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128, (name, first, second)


def test_stored_items_are_where_the_session_is(cluster):
    one, other = sessions_of_both(cluster)
    for session in (*one[:3], *other[:3]):
        headers = {"session-id": session}
        body = {"input": "My name is Ada.", "max_output_tokens": 20}
        first = cluster.http.post(RESPONSES, json=body, headers=headers).json()
        assert cluster.http.get(f"{RESPONSES}/{first['id']}", headers=headers).status_code == 200
        body |= {"previous_response_id": first["id"]}
        assert cluster.http.post(RESPONSES, json=body, headers=headers).status_code == 200


def test_a_client_that_leaves_ends_the_computation(cluster):
    session = "leaves"
    before = cluster.figure("gptoss_generation_tokens_total", session)
    body = {**LONG, "max_tokens": 3500}
    with cluster.http.stream("POST", COMPLETIONS, json=body, headers={"x-session-id": session}) as answer:
        lines = answer.iter_lines()  # with its end the connection would end
        next(lines)
        cluster.wait(lambda: cluster.figure("gptoss_num_requests_running", session) == 1, 20)
    cluster.wait(lambda: cluster.figure("gptoss_num_requests_running", session) == 0, 20)
    assert cluster.figure("gptoss_generation_tokens_total", session) - before < 3000


def test_a_full_replicas_429_comes_through(cluster, pool):
    room = SETTINGS["max-running"] + SETTINGS["max-queued"]
    body = {**LONG, "max_tokens": 200}
    taken = [pool.submit(streamed, cluster, "crowd", body) for _ in range(room)]
    cluster.wait(lambda: cluster.figure("gptoss_num_requests_waiting", "crowd") == SETTINGS["max-queued"])
    refused = cluster.http.post(COMPLETIONS, json=body, headers={"x-session-id": "crowd"})
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) >= 1
    assert all(_all_came(each) for each in taken)


def test_a_replica_that_is_killed_ends_its_own_streams_and_another_takes_its_place(cluster, pool):
    one, other = sessions_of_both(cluster)
    asked, begun = [*one[:3], *other[:3]], []
    running = {session: pool.submit(streamed, cluster, session, LONG, begun) for session in asked}
    cluster.wait(lambda: set(begun) == set(asked))
    before = cluster.pids()
    assert len(before) == 2
    cluster.kill(before[0])
    ended = {session: each.result(120) for session, each in running.items()}
    whole = {session for session, (_, done) in ended.items() if done}
    assert whole in (set(one[:3]), set(other[:3])), {session: done for session, (_, done) in ended.items()}
    answers = [_asks_until_it_answers(cluster, session) for session in asked]  # by whom is left
    assert answers == [200] * 6
    cluster.wait(lambda: cluster.running() == 2 and len(set(cluster.pids()) - set(before)) == 1)


def _asks_until_it_answers(cluster, session):
    """A router may still use the dead replica for a moment, so the client retries on 5xx."""
    end = time.monotonic() + 30
    while True:
        body = {"messages": [FRANCE], "max_tokens": 5}
        status = cluster.http.post(CHAT, json=body, headers={"x-session-id": session}).status_code
        if status < 500 or time.monotonic() > end:
            return status


def test_replicas_come_under_load_and_go_after_it_and_nothing_is_lost(cluster, pool):
    quick = {"target_requests": 2, "upscale_seconds": 0.5, "downscale_seconds": 1, "look_back_seconds": 2}
    cluster.run(min_replicas=1, max_replicas=2, **quick)
    most = 0
    body = {**LONG, "max_tokens": 300}
    todo = [pool.submit(streamed, cluster, f"load-{i % 8}", body) for i in range(16)]
    answered = 0
    end = time.monotonic() + 80
    while most < 2 or not all(each.done() for each in todo):
        assert time.monotonic() < end, cluster.replicas()
        most = max(most, cluster.running())
        for i, each in enumerate(todo):
            if each.done() and most < 2:
                answered += _all_came(each)
                todo[i] = pool.submit(streamed, cluster, f"load-{answered % 8}", body)
        time.sleep(0.1)
    assert most == 2
    # Streams that take longer than the decision to go down: on both replicas, and one of them has to go.
    last = [pool.submit(streamed, cluster, f"load-{i}", {**LONG, "max_tokens": 900}) for i in range(2)]
    answered += sum(_all_came(each) for each in [*todo, *last])
    cluster.wait(lambda: cluster.replicas() == {"RUNNING": 1})
    assert answered >= 18


def _all_came(each):
    texts, done = each.result(120)
    assert done, texts[-3:]
    return True
