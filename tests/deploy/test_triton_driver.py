"""The GPU image has no compiler: what Triton would compile at its first use is compiled with the image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed here")
SCRIPT = Path(__file__).parents[2] / "deploy" / "image" / "triton_driver.py"
LOAD = "from triton.backends.nvidia.driver import CudaUtils; CudaUtils()"


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc here")
def test_triton_starts_without_a_compiler_where_its_driver_was_compiled(tmp_path):
    linked, kept, tools = tmp_path / "linked", tmp_path / "kept", tmp_path / "tools"
    linked.mkdir()
    tools.mkdir()
    if shutil.which("file"):  # Triton's key depends on it
        (tools / "file").symlink_to(shutil.which("file"))
    variables = {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_LIBCUDA_PATH": str(linked)}

    def python(*words, path, libraries):
        environ = {**variables, "PATH": str(path), "LD_LIBRARY_PATH": str(libraries), "HOME": str(tmp_path)}
        return subprocess.run([sys.executable, *map(str, words)], env=environ, capture_output=True, text=True)

    before = python("-c", LOAD, path=tools, libraries=kept)
    assert "compiler" in before.stderr
    built = python(SCRIPT, kept, path=os.environ["PATH"], libraries=linked)
    assert built.returncode == 0, built.stderr
    shutil.rmtree(linked)  # the final stage has only what was kept
    after = python("-c", LOAD, path=tools, libraries=kept)
    assert after.returncode == 0, after.stderr
