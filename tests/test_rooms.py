"""server → engine → model, never back; and each heavy import has its room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {"server": {"server", "engine", "model", "demo"}, "engine": {"engine", "model"}, "model": {"model"}}
FILES = sorted(path for room in BELOW for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The full names of all modules a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
    return names


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_rooms_know_only_those_below(path):
    rooms = {module.split(".")[0] for module in imports(path)} & {*BELOW, "demo", "bench", "tests"}
    assert rooms <= BELOW[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_imports_stay_in_their_rooms(path):
    modules = {module.split(".")[0] for module in imports(path)}
    room = path.relative_to(ROOT).parts[0]
    if room != "server":
        assert not modules & {"fastapi", "pydantic", "uvicorn", "starlette", "sse_starlette", "tokenizers"}
        assert name(path) == "engine/worker.py" or "asyncio" not in modules
    if room != "model":
        assert name(path) in ("engine/runner.py", "engine/sampling.py") or "torch" not in modules
    if room != "model":
        assert "safetensors" not in modules
    assert not modules & {"transformers", "openai_harmony", "numpy", "jaxtyping"}, (
        "at run time we need none of these"
    )
