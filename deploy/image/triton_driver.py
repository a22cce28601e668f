"""Compiles the only C code that Triton needs at run time, so that the final image needs no compiler.

Triton compiles kernels with its own LLVM and ptxas.  It launches them with a Python module, `cuda_utils`,
which it compiles from its driver.c at the first use and caches in $TRITON_CACHE_DIR.  The module is linked
with libcuda.so.1.  This library belongs to the driver, and is mounted only into a running container.  Here a
substitute with the functions of cuda.h takes its place, in $TRITON_LIBCUDA_PATH, where the real library will
be.

The final stage of the image loads the module once more with the substitute, without a compiler.  This proves
that Triton finds it in the cache.  The cache key contains the source and the platform, and Python finds out
the platform with the program `file`, if there is one.  So `file` must be in both stages of the image, or in
none.

    python deploy/image/triton_driver.py FOLDER        leaves the substitute in FOLDER too
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
    """Builds a library `target` in which every function of cuda.h, under all its names, does nothing."""
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
