"""Models built in code with seeded weights: standard ONNX that any tool reads."""

from __future__ import annotations

from coexec.zoo.catalog import CATALOG, build
from coexec.zoo.entry import ZooEntry

__all__ = ["CATALOG", "ZooEntry", "build"]
