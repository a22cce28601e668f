"""`gptoss download` as a process, with the real huggingface_hub and a fake hub on this machine."""

import dataclasses
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests import tiny_checkpoint
from tests.gptoss.hub import fake_hub
from tests.gptoss.hub.fake_hub import COMMIT
from tests.gptoss.test_command_line import serving
from tests.server.fakes import byte_tokenizer
from tests.server.test_endings import wait_for

ROOT = Path(__file__).parents[3]
NAME = "acme/gpt-oss-tiny"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NEEDED = {"config.json", "tokenizer.json", "model.safetensors.index.json", FIRST, SECOND}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A repository like gpt-oss's: two layouts, and files that are not needed for serving."""
    folder = tmp_path_factory.mktemp("published")
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300, initial_context_length=1024)
    tiny_checkpoint.write(folder, layout="hf", config=config)
    tiny_checkpoint.write(folder / "original", config=config)
    byte_tokenizer(folder)
    for name in ("README.md", "LICENSE", "chat_template.jinja", "metal/model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


@pytest.fixture
def hub(published):
    with fake_hub.serving({NAME: published}) as hub:
        yield hub


@pytest.fixture
def environment(hub, tmp_path):
    theirs = ("HF_", "GPTOSS_", "HTTP", "NO_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(theirs)}
    return {**kept, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def gptoss(environment):
    def run(*words, **more):
        return subprocess.run(
            [sys.executable, "-m", "gptoss", *words],
            cwd=ROOT, env=environment | more, capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    return run


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "home" / "hub" / "models--acme--gpt-oss-tiny"


def blob(cache, published, name):
    content = (published / name).read_bytes()
    return cache / "blobs" / fake_hub.etag(name, content), content


def assert_downloaded(result, cache, published):
    """Check that exactly the needed files were downloaded, unchanged, into the cache's layout."""
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert folder == cache / "snapshots" / COMMIT
    assert {path.name for path in folder.iterdir()} == NEEDED
    for name in NEEDED:
        assert (folder / name).read_bytes() == (published / name).read_bytes()
    assert (cache / "refs" / "main").read_text() == COMMIT
    assert not list((cache / "blobs").glob("*.incomplete"))


def assert_one_line(result):
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line.startswith("gptoss: ")]
    assert len(said) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return said[0]


def test_only_the_files_needed_are_downloaded_and_the_second_time_only_checked(gptoss, hub, cache, published):
    first = gptoss("download", NAME)
    assert_downloaded(first, cache, published)
    assert {line.split(":")[0] for line in first.stderr.splitlines()} == {NAME, "downloading", "ready"}
    assert f"ready: gptoss serve --model {NAME}" in first.stderr
    assert {each.path for each in hub.asked if each.path.startswith("/cdn/") and each.method == "GET"} == {
        f"/cdn/{NAME}/{name}" for name in (FIRST, SECOND, "tokenizer.json")
    }
    hub.asked.clear()
    again = gptoss("download", NAME)
    assert_downloaded(again, cache, published)
    assert "checking: " in again.stderr
    assert not any(each.path.startswith("/cdn/") and each.method == "GET" for each in hub.asked)


def test_the_token_goes_to_the_hub_and_to_nobody_else(gptoss, hub, cache, published):
    hub.gated = True
    assert f"{hub.url}/{NAME}" in assert_one_line(gptoss("download", NAME))
    assert_downloaded(gptoss("download", NAME, HF_TOKEN="hf_secret"), cache, published)
    asked = [each for each in hub.asked if each.path.startswith(("/cdn/", f"/{NAME}/"))]
    assert len(asked) > len(NEEDED)
    for each in asked:
        assert each.token == (None if each.path.startswith("/cdn/") else "Bearer hf_secret"), each


def test_a_connection_that_breaks_is_taken_up_where_it_broke(gptoss, hub, cache, published):
    hub.cuts = {FIRST: [1000, 500], "tokenizer.json": [10]}
    assert_downloaded(gptoss("download", NAME), cache, published)
    assert hub.bodies(f"{NAME}/{FIRST}") == [None, "bytes=1000-", "bytes=1500-"]
    assert hub.bodies(f"{NAME}/tokenizer.json") == [None, "bytes=10-"]


def assert_goes_on(size, gptoss, hub, cache, published):
    """Check that the next download requests only the bytes after the first `size` of the first shard."""
    hub.go_on.set()
    hub.stalls = {}
    hub.asked.clear()
    assert_downloaded(gptoss("download", NAME), cache, published)
    assert hub.bodies(f"{NAME}/{FIRST}") == [f"bytes={size}-"]


def test_a_program_that_is_killed_goes_on_where_it_was(gptoss, hub, cache, published, environment):
    hub.stalls = {FIRST: 70_000}
    words = [sys.executable, "-m", "gptoss", "download", NAME]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    assert hub.stalled.wait(60)
    partial = blob(cache, published, FIRST)[0].with_suffix(".incomplete")
    assert wait_for(lambda: partial.exists() and partial.stat().st_size)
    process.kill()
    process.wait(20)
    assert_goes_on(partial.stat().st_size, gptoss, hub, cache, published)


@pytest.fixture
def ctrl_c():
    """Lets started programs be interrupted, also if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.exhaustive
def test_ctrl_c_keeps_what_has_come(gptoss, hub, cache, published, environment, ctrl_c):
    hub.stalls = {FIRST: 70_000}
    words = [sys.executable, "-m", "gptoss", "download", NAME]
    environment |= {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}  # how long a silent hub keeps the program from ending
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert hub.stalled.wait(60)
    partial = blob(cache, published, FIRST)[0].with_suffix(".incomplete")
    assert wait_for(lambda: partial.exists() and partial.stat().st_size)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    assert_goes_on(partial.stat().st_size, gptoss, hub, cache, published)


@pytest.mark.exhaustive
def test_two_at_once_do_not_write_into_one_file(gptoss, hub, cache, published, environment):
    hub.stalls = {FIRST: 70_000}
    words = [sys.executable, "-m", "gptoss", "download", NAME]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert hub.stalled.wait(60)
    assert "another process is downloading" in assert_one_line(gptoss("download", NAME))
    hub.go_on.set()
    assert process.wait(60) == 0
    process.communicate()
    assert_downloaded(gptoss("download", NAME), cache, published)


@pytest.mark.exhaustive
def test_a_hub_without_ranges_is_read_from_the_start_again(gptoss, hub, cache, published):
    hub.ranges, hub.cuts = False, {FIRST: [1000]}
    assert_downloaded(gptoss("download", NAME), cache, published)


def test_what_arrives_damaged_is_not_kept(gptoss, hub, cache, published):
    hub.wrong = {SECOND}
    assert f"{SECOND} arrived damaged" in assert_one_line(gptoss("download", NAME))
    place, _ = blob(cache, published, SECOND)
    assert not place.exists()
    assert not place.with_name(place.name + ".incomplete").exists()
    hub.wrong = set()
    assert_downloaded(gptoss("download", NAME), cache, published)


@pytest.mark.exhaustive
def test_what_was_damaged_on_disk_is_found_and_fetched_again(gptoss, hub, cache, published):
    assert_downloaded(gptoss("download", NAME), cache, published)
    place, content = blob(cache, published, FIRST)
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{FIRST} on disk was damaged" in assert_one_line(gptoss("download", NAME))
    assert_downloaded(gptoss("download", NAME), cache, published)


@pytest.mark.parametrize(
    "shape",
    ["{}", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("/../{}", "../../../../{}"))],
)
@pytest.mark.parametrize("name", ["config.json", FIRST])
def test_a_hub_cannot_name_a_file_of_ours_as_a_checksum(gptoss, hub, cache, published, tmp_path, shape, name):
    """Before, the file at that path would have been found damaged, and removed."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    hub.etags = {name: shape.format(precious)}
    assert "an invalid checksum" in assert_one_line(gptoss("download", NAME))
    assert precious.read_text() == "mine"


def test_a_hub_s_answer_about_one_file_cannot_name_a_path(
    gptoss, hub, cache, published, tmp_path, monkeypatch
):
    """huggingface_hub uses the ETag of a response as the name of a file on disk."""
    precious = tmp_path / "precious"
    listed = dict(hub.etags)
    monkeypatch.setattr(
        fake_hub, "listing", lambda hub, model, make=fake_hub.listing: _honest(hub, model, make)
    )
    hub.etags = listed | {"config.json": str(precious)}
    assert_downloaded(gptoss("download", NAME), cache, published)
    assert not precious.exists()


def _honest(hub, model, make):
    return make(dataclasses.replace(hub, etags={}), model)


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.safetensors",
        "a\nb",
        *(
            pytest.param(each, marks=pytest.mark.exhaustive)
            for each in ("/tmp/escaped.safetensors", "a\\..\\b", "a//b", ".")
        ),
    ],
)
def test_a_hub_cannot_name_a_file_outside_of_the_folder(gptoss, hub, name):
    hub.names = {FIRST: name}
    said = assert_one_line(gptoss("download", NAME))
    assert "not a name inside a folder" in said
    assert said.isprintable()


@pytest.mark.parametrize(
    "commit",
    ["../../../x", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("main", "A" * 40))],
)
def test_a_hub_cannot_name_a_folder_as_a_commit(gptoss, hub, commit):
    hub.commit = commit
    assert "an invalid commit" in assert_one_line(gptoss("download", NAME))


def test_too_little_room_is_found_before_the_first_weight(gptoss, hub, published, monkeypatch, cache):
    huge = fake_hub.listing(hub, NAME)
    for entry in huge["siblings"]:
        if entry["rfilename"] == FIRST:
            entry["lfs"]["size"] = 2**60
    monkeypatch.setattr(fake_hub, "listing", lambda hub, model: huge)
    said = assert_one_line(gptoss("download", NAME))
    assert "1152921504.6 GB must be downloaded" in said
    assert "HF_HOME" in said
    assert not hub.bodies(f"{NAME}/{FIRST}")
    assert not hub.bodies(f"{NAME}/{SECOND}")


def test_everything_goes_through_the_proxy(gptoss, hub, cache, published):
    more = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.url, "NO_PROXY": ""}
    assert_downloaded(gptoss("download", NAME, **more), cache, published)


def test_a_proxy_that_is_not_there_is_one_line(gptoss):
    more = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert "cannot reach http://hub.invalid" in assert_one_line(gptoss("download", NAME, **more))


def test_a_hub_that_is_not_there_is_one_line(gptoss):
    said = assert_one_line(gptoss("download", NAME, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "cannot reach http://127.0.0.1:9" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["acme/other"], "no model acme/other"),
        ([NAME, "--revision", "v9"], "no revision v9"),
        (["acme/a/b"], "is not the name of a model"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(gptoss, words, hint):
    assert hint in assert_one_line(gptoss("download", *words))


def test_a_hub_that_is_ill_is_one_line(gptoss, hub):
    hub.status = 500
    assert "answered 500" in assert_one_line(gptoss("download", NAME))


def test_a_repository_without_a_model_is_one_line(gptoss, hub, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.gguf").write_text("GGUF")
    hub.models["acme/gguf"] = tmp_path / "other"
    assert "acme/gguf is not a gpt-oss" in assert_one_line(gptoss("download", "acme/gguf"))


def test_offline_nothing_is_asked_and_only_what_is_here_is_used(gptoss, hub, cache, published):
    said = assert_one_line(gptoss("download", NAME, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE" in said
    assert_downloaded(gptoss("download", NAME), cache, published)
    hub.asked.clear()
    assert_downloaded(gptoss("download", NAME, HF_HUB_OFFLINE="1"), cache, published)
    assert not hub.asked


@pytest.mark.exhaustive
def test_a_model_of_the_hub_is_served_under_its_name(gptoss, environment, cache, published):
    assert_downloaded(gptoss("download", NAME), cache, published)
    theirs = {name: value for name, value in environment.items() if name.startswith("HF_")}
    with serving(NAME, **theirs) as (_, url, _):
        assert httpx.get(url + "/v1/models", timeout=30).json()["data"][0]["id"] == NAME


@pytest.mark.exhaustive
def test_a_commit_is_served_from_its_folder(gptoss, hub, cache):
    result = gptoss("download", NAME, "--revision", COMMIT)
    folder = cache / "snapshots" / COMMIT
    assert result.stdout == f"{folder}\n"
    assert f"ready: gptoss serve --model {folder}\n" in result.stderr
    assert not (cache / "refs").exists()  # the branch was not asked for
    assert gptoss("download", NAME, "--revision", COMMIT, HF_HUB_OFFLINE="1").stdout == result.stdout


def test_a_model_that_is_not_here_is_one_line_with_the_command(gptoss, hub):
    said = assert_one_line(gptoss("serve", "--port", "0", "--model", NAME))
    assert f"`gptoss download {NAME}`" in said
    assert not hub.asked  # without a terminal nobody is asked, and nothing is fetched


@pytest.mark.exhaustive
def test_a_model_of_which_a_part_is_missing_is_one_line(gptoss, cache, published):
    assert_downloaded(gptoss("download", NAME), cache, published)
    (cache / "snapshots" / COMMIT / SECOND).unlink()
    said = assert_one_line(gptoss("serve", "--port", "0", "--model", NAME))
    assert f"lacks {SECOND}" in said
    assert f"`gptoss download {NAME}`" in said


@pytest.mark.exhaustive
@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_it_is_offered(environment, cache, published, answer):
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "gptoss", "generate", "x", "--model", NAME, "--max-tokens", "1"]
    process = subprocess.Popen(
        [*words, "--backend", "reference"],
        cwd=ROOT, env=environment, stdin=follower, stderr=follower, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(follower)
    os.write(leader, answer.encode() + b"\n")
    printed, _ = process.communicate(timeout=110)
    said = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "Download it now? [y/N]" in said
    if answer == "y":
        assert process.returncode == 0, said
        assert "FINAL OUTPUT" in printed
        assert (cache / "snapshots" / COMMIT / FIRST).is_file()
    else:
        assert process.returncode == 2
        assert "was not downloaded" in said
        assert not cache.exists()
