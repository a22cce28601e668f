"""Compiles the one piece of C that Triton needs at run time, so that the final image needs no compiler.

Triton makes its kernels with its own LLVM and ptxas.  What launches them is a Python module, `cuda_utils`,
which it compiles from its driver.c at first use and keeps in $TRITON_CACHE_DIR.  The module is linked with
libcuda.so.1, which belongs to the driver and is mounted into a running container only; here a stand-in with
the names that cuda.h declares takes its place, in $TRITON_LIBCUDA_PATH, where the real one is going to be.

The final stage loads the module once more against the stand-in, without a compiler at hand: what this left
in the cache is then known to be what Triton looks for.  It looks by source and platform, for which Python
asks the program `file` where there is one: an image with `file` in it needs it in both stages.

    python deploy/image/triton_driver.py FOLDER        leaves the stand-in in FOLDER too
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from triton.backends.nvidia import driver

NAME = "libcuda.so.1"


def stand_in(header: Path, target: Path) -> None:
    """A library `target` in which every function of cuda.h, under all its names, does nothing."""
    names = sorted(set(re.findall(r"\bcu[A-Z]\w+", header.read_text())))
    source = "".join(f"int {name}(void) {{ return 0; }}\n" for name in names)
    options = ["-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-x", "c", "-", "-o", str(target)]
    subprocess.run(["gcc", *options], input=source, text=True, check=True)


def main() -> None:
    linked = Path(os.environ["TRITON_LIBCUDA_PATH"]) / NAME
    stand_in(Path(driver.include_dirs[0]) / "cuda.h", linked)
    driver.CudaUtils()
    kept = Path(sys.argv[1])
    kept.mkdir()
    shutil.copy(linked, kept)


if __name__ == "__main__":
    main()
