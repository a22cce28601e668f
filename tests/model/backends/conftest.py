"""Kernels that run in Triton's interpreter are checked by the sanitizer (tests/tools/sanitizer)."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def _watched(request):
    """Around all of a module's fixtures and tests; one that imports `watching` does it by itself."""
    imported = getattr(request.module, "DEVICE", None)
    if os.environ.get("TRITON_INTERPRET") != "1" or imported is None or hasattr(request.module, "watching"):
        yield
        return
    from tests.tools.sanitizer.sanitizer import watching

    with watching():
        yield
