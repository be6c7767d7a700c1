"""coexec trains and runs ONNX models on every processor of one device.

Names are imported when first used: ``import coexec`` itself is fast, and a saved program runs
(:func:`open_bundle`) where ONNX is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coexec.base.collection import collection_paused
from coexec.base.postponed import postpone

if TYPE_CHECKING:
    from coexec.api import Trainer, compile, from_torch, load
    from coexec.autodiff import losses, schedules
    from coexec.autodiff import optimizers as optim
    from coexec.base.errors import CoexecError
    from coexec.bundle import open_bundle
    from coexec.core.events import Trace
    from coexec.runtime.mode import ExecutionMode

__version__ = "0.1.0"

__all__ = [
    "CoexecError",
    "ExecutionMode",
    "Trace",
    "Trainer",
    "compile",
    "from_torch",
    "load",
    "losses",
    "open_bundle",
    "optim",
    "schedules",
]

postpone()

_HOMES = {
    "CoexecError": ("coexec.base.errors", "CoexecError"),
    "ExecutionMode": ("coexec.runtime.mode", "ExecutionMode"),
    "Trace": ("coexec.core.events", "Trace"),
    "Trainer": ("coexec.api", "Trainer"),
    "compile": ("coexec.api", "compile"),
    "from_torch": ("coexec.api", "from_torch"),
    "load": ("coexec.api", "load"),
    "losses": ("coexec.autodiff.losses", ""),
    "open_bundle": ("coexec.bundle", "open_bundle"),
    "optim": ("coexec.autodiff.optimizers", ""),
    "schedules": ("coexec.autodiff.schedules", ""),
}
"""Where each public name lives; an empty attribute is the module itself."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coexec' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    with collection_paused():
        found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
