"""The native part of the package; everything else is in pyproject.toml.

Optional: without a compiler the installation succeeds, and the server says at its start what is missing.
"""

import runpy

from setuptools import Extension, setup

toolchain = runpy.run_path("model/backends/cpu/toolchain.py")


def relative(paths):
    return [path.as_posix() for path in paths]


setup(
    ext_modules=[
        Extension(
            "model.backends.cpu._native",
            sources=relative(toolchain["sources"]()),
            depends=relative(toolchain["headers"]()),
            define_macros=list(toolchain["defines"]().items()),
            extra_compile_args=toolchain["FLAGS"],
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
    ]
)
