"""Modules that load when something of them is first used, not when somebody imports them.

``onnx_ir`` imports SymPy, half of its own start, for arithmetic on symbolic dimensions, which
static shapes never need.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

POSTPONED = frozenset({"sympy", "onnx_ir._symbolic_shapes"})
"""The second is ``onnx_ir``'s only user of the first at import; without it all loads at once."""


class PostponingFinder:
    """Finds the modules of :data:`POSTPONED` where they are, with a loader that waits."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As in ``importlib.abc.MetaPathFinder``."""
        if name not in POSTPONED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def postpone() -> None:
    """Do so from now on, in this process; modules that are loaded already stay as they are."""
    if PostponingFinder not in sys.meta_path:
        sys.meta_path.insert(0, PostponingFinder)
