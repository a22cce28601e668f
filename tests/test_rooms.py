"""Imports go only downwards, without circles, none is hidden, and heavy packages are imported only where
allowed.

The order is gptoss > server > language > engine > model; demo, bench and deploy stand beside it.
"""

from pathlib import Path

import pytest

from tests.tools.rooms.rooms import BESIDE, CROWDED, LOOSE, PACKAGES, Tree

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "fastapi": {"server", "gptoss", "deploy.ray", "bench.ray_proxy"},
    "pydantic": {"server", "gptoss", "deploy.ray"},
    "uvicorn": {"server", "gptoss", "bench"},
    "starlette": {"server", "deploy.ray.sticky"},
    "sse_starlette": {"server"},
    "prometheus_client": {"server"},
    "huggingface_hub": {"gptoss"},
    "ray": {"deploy.ray", "bench.ray_proxy"},
    "psycopg": {"server.dialogue.postgres"},
    "opentelemetry": {"server.traces"},
    "tokenizers": {"language", "demo"},
    "llguidance": {"language"},
    "asyncio": {"gptoss", "server", "language.constraints.threads", "engine.worker", "bench"},
    "torch": {"engine.runner", "engine.sampling", "model", "demo", "bench"},
    "triton": {"model.backends.triton", "bench.gpu", "deploy.image.triton_driver"},
    "safetensors": {"model.loading.shards", "demo.network"},
    # At run time none of these is needed.
    "transformers": {"bench.gpu.floor"},  # compared with
    "openai_harmony": set(),
    "numpy": set(),
    "jaxtyping": set(),
}
"""Package of others → our packages or modules that may import it."""


@pytest.fixture(scope="module")
def ours():
    return Tree(ROOT)


def test_no_import_goes_up(ours):
    assert ours.upward() == []


def test_no_files_and_no_folders_import_in_a_circle(ours):
    assert ours.circles() == []


def test_no_import_is_hidden(ours):
    assert ours.hidden == []


def test_no_folder_is_crowded(ours):
    assert ours.crowded() == []
    for folder in CROWDED:
        assert len(list((ROOT / folder).glob("*.py"))) > LOOSE, f"{folder} needs no exception any more"


def test_heavy_packages_stay_in_their_rooms(ours):
    for each in ours.imports:
        room = each.module.split(".")[0]
        allowed = ALLOWED.get(each.target.split(".")[0])
        if allowed is not None and room in (*PACKAGES, *BESIDE):
            inside = any(each.module == name or each.module.startswith(f"{name}.") for name in allowed)
            assert inside, f"{each.module} imports {each.target}"


JSON_FREE = {f"server.dialogue.{name}" for name in ("turn", "begin", "answer", "continuation", "choices")}
"""Each API writes the answer's JSON itself, so what they share has none."""


def test_what_the_apis_share_of_an_answer_knows_no_json(ours):
    assert ours.paths.keys() >= JSON_FREE
    for each in ours.imports:
        knows = each.target.split(".")[0] in ("json", "orjson") or each.target == "server.sse"
        assert not (knows and each.module in JSON_FREE), f"{each.module} imports {each.target}"


def planted(root: Path, files: dict[str, str]) -> Tree:
    """A source tree with these modules: name → source."""
    for name, text in files.items():
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


def test_a_planted_upward_import_is_found(tmp_path):
    tree = planted(
        tmp_path,
        {
            "engine.worker": "def run():\n    from server.wire import Body\n",
            "server.wire": "import model.batch, engine.errors",
            "model.batch": "import tests.helper\nimport bench.gpu",
            "engine.errors": "if TYPE_CHECKING:\n    from gptoss.ask import Ask",
            "language.names": "import demo.words",
            "demo.words": "import gptoss.ask, language.names",
            "bench.gpu": "import demo.words, model.batch",
            "deploy.lock": "import server.wire",
            "gptoss.ask": "import server.wire",
            "tests.helper": "import gptoss.ask",
        },
    )
    assert tree.upward() == [
        "deploy.lock imports server.wire",
        "engine.errors imports gptoss.ask",
        "engine.worker imports server.wire",
        "language.names imports demo.words",
        "model.batch imports bench.gpu",
        "model.batch imports tests.helper",
    ]


def test_a_planted_circle_of_files_is_found(tmp_path):
    tree = planted(
        tmp_path,
        {
            "engine.a": "from engine import b",
            "engine.b": "def f():\n    import engine.c as c",
            "engine.c": "from engine.a import name",
            "engine.d": "from engine.a import name",
        },
    )
    assert tree.circles() == ["files engine.a → engine.b → engine.c"]


def test_what_is_imported_for_types_alone_closes_no_circle(tmp_path):
    tree = planted(
        tmp_path,
        {
            "engine.a": "from engine import b",
            "engine.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engine.a",
        },
    )
    assert tree.circles() == []


def test_a_planted_circle_of_folders_is_found(tmp_path):
    """No file is on a circle, only the folders are."""
    tree = planted(
        tmp_path,
        {
            "server.api.chat": "from server.dialogue import turn",
            "server.api.words": "",
            "server.dialogue.turn": "",
            "server.dialogue.answer": "import server.api.words",
        },
    )
    assert tree.circles() == ["folders server.api → server.dialogue"]


def test_a_planted_import_by_string_is_found(tmp_path):
    tree = planted(
        tmp_path,
        {
            "model.probe": "from importlib import import_module\nimport_module(f'model.{name}')",
            "model.table": "TABLE = {'a': 'model.probe'}\nimportlib.import_module(TABLE[key])",
            "model.other": "TABLE = {'a': some()}\n__import__(TABLE[key])",
            "model.near": "from . import probe",
        },
    )
    assert tree.hidden == [
        "model.near, line 1: a relative import",
        "model.other, line 2: imports a name that is not written out",
        "model.probe, line 2: imports a name that is not written out",
    ]


def test_an_import_by_string_counts_like_any_other(tmp_path):
    tree = planted(
        tmp_path,
        {
            "model.table": "TABLE = {'a': 'model.a', 'b': 'engine.b'}\nimport_module(TABLE[key])",
            "model.a": "importlib.util.find_spec('model.table')",
            "engine.b": "[python, '-m', 'gptoss.ask']",
            "gptoss.ask": "",
        },
    )
    assert tree.circles() == ["files model.a → model.table"]
    assert tree.upward() == ["engine.b imports gptoss.ask", "model.table imports engine.b"]
    assert tree.hidden == []


def test_a_planted_crowd_is_found(tmp_path):
    files = {f"engine.{n}": "" for n in range(LOOSE + 1)} | {f"model.{n}": "" for n in range(LOOSE)}
    assert planted(tmp_path, files | {"model.__init__": ""}).crowded() == [f"engine: {LOOSE + 1} files"]
