"""Which files of a repository are downloaded."""

import json
from pathlib import Path

import pytest

from gptoss.assembly import name_of
from gptoss.hub.cache import is_repo, repo_of
from gptoss.hub.files import REPO, NotAModel, wanted
from server.settings import Settings

INDEX = "model.safetensors.index.json"
PUBLISHED = {
    ".gitattributes", "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
    "metal/model.bin", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX,
    "original/config.json", "original/dtypes.json", "original/model.safetensors", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def index(*shards):
    content = json.dumps({"weight_map": {f"tensor {i}": shard for i, shard in enumerate(shards)}}).encode()

    def read(name):
        assert name.endswith(INDEX)
        return content

    return read


BOTH = index("model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors")


def test_of_what_is_published_only_one_layout_is_taken():
    assert wanted(PUBLISHED, BOTH) == [
        "config.json",
        "tokenizer.json",
        INDEX,
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_without_shards_at_the_top_the_original_is_taken():
    names = {name for name in PUBLISHED if not name.startswith("model")}
    assert wanted(names, index()) == ["original/config.json", "tokenizer.json", "original/model.safetensors"]


def test_without_an_index_all_weights_beside_each_other_are_taken():
    names = {"config.json", "tokenizer.json", "a.safetensors", "b.safetensors", "adapter/c.safetensors"}
    assert wanted(names, index()) == ["config.json", "tokenizer.json", "a.safetensors", "b.safetensors"]


def test_a_shard_that_the_index_names_is_wanted_where_there_is_none():
    names = PUBLISHED - {"model-00002-of-00002.safetensors"}
    assert "model-00002-of-00002.safetensors" in wanted(names, BOTH)


def test_an_index_cannot_name_files_of_other_folders():
    assert wanted({"config.json", "tokenizer.json", INDEX}, index("../../secrets"))[-1] == "secrets"


@pytest.mark.parametrize(
    ("names", "read", "hint"),
    [
        ({"README.md", "model.gguf", "config.json", "tokenizer.json"}, BOTH, "no \\*.safetensors"),
        (PUBLISHED - {"tokenizer.json"}, BOTH, "no tokenizer.json"),
        (PUBLISHED - {"config.json"}, BOTH, "no config.json"),
        (PUBLISHED, lambda name: b"{", "not an index"),
        (PUBLISHED, lambda name: b'{"weight_map": 1}', "not an index"),
        (PUBLISHED, lambda name: b'{"weight_map": {"a": 1}}', "not an index"),
    ],
)
def test_a_repository_that_holds_no_model_is_refused(names, read, hint):
    with pytest.raises(NotAModel, match=hint):
        wanted(names, read)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/cache/hub/models--openai--gpt-oss-20b/snapshots/0123", "openai/gpt-oss-20b"),
        ("/cache/hub/models--a--b--c/snapshots/0123", "a/b--c"),
        ("/cache/hub/datasets--a--b/snapshots/0123", None),
        ("/models/gpt-oss-20b", None),
        ("/", None),
    ],
)
def test_a_folder_of_the_cache_is_known_by_its_name_on_the_hub(folder, name):
    assert repo_of(Path(folder)) == name


def test_a_folder_that_exists_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repo(Path("openai/gpt-oss-20b"))
    (tmp_path / "openai" / "gpt-oss-20b").mkdir(parents=True)
    assert not is_repo(Path("openai/gpt-oss-20b"))


@pytest.mark.parametrize("name", ["openai/gpt-oss-20b", "a/b", "Org_1/x.y-z"])
def test_names_of_models(name):
    assert REPO.fullmatch(name)


@pytest.mark.parametrize(
    "path", ["gpt-oss-20b", "/a/b", "./a/b", "../b", "a/b/c", "a/", "~/b", "a//b", "a/.b"]
)
def test_paths_that_are_no_names_of_models(path):
    assert not REPO.fullmatch(path)


def test_a_model_of_the_cache_is_served_under_its_name_also_where_its_folder_was_given(tmp_path):
    folder = tmp_path / "models--acme--tiny" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    assert name_of(Settings(model=folder)) == "acme/tiny"
    assert name_of(Settings(model=folder / "original")) == "acme/tiny"


@pytest.mark.parametrize("index", [b"[" * 100_000, b"\xff" * 10_000, b'{"weight_map": 7}', b"{}"])
def test_an_index_that_is_none_is_one_short_line(index):
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json", "a.safetensors"]
    with pytest.raises(NotAModel) as error:
        wanted(names, lambda name: index)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
