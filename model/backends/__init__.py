"""The backends, each a package with a `BACKEND` (model/interfaces.py), which builds a `Model`.

Each backend has its own implementation of the whole pass.  reference/ defines the correct result, and every
other backend is tested against it.  The backend is chosen once, when the program is assembled (`load`).
"""

from __future__ import annotations

from importlib import import_module

import torch

from model.interfaces import Backend

_MODULES = {
    "reference": "model.backends.reference",
    "cpu": "model.backends.cpu",
    "triton": "model.backends.triton",
}
BACKENDS = tuple(_MODULES)
_DEFAULTS = {"cpu": "cpu", "cuda": "triton"}  # the fastest for each kind of device


def choose(device: torch.device, backend: str | None = None) -> str:
    """The name of the backend that `load` would return."""
    return backend or _DEFAULTS.get(device.type, "reference")


def load(device: torch.device, backend: str | None = None) -> Backend:
    """The named backend, or the fastest one for `device`.  Imports only that one.

    If it cannot be imported, the exception has the reason.  It is never replaced by a slower one.
    """
    name = choose(device, backend)
    if name not in BACKENDS:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(BACKENDS)}")
    found: Backend = import_module(_MODULES[name]).BACKEND
    return found
