"""NumPy with its OpenBLAS: matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.operands import draw
from bench.worker import Job


class Product:
    """out = a b, written to memory that is there already."""

    def __init__(self, kind: str, spec: Mapping[str, Any]) -> None:
        arrays = draw(spec["operands"])
        self.a, self.b = (
            (arrays["a"], arrays["b"]) if kind == "gemm.plain" else (arrays["x"], arrays["w"].T)
        )
        self.out = np.empty((self.a.shape[0], self.b.shape[1]), np.float32)

    def run(self, count: int) -> None:
        for _ in range(count):
            np.matmul(self.a, self.b, out=self.out)

    def outputs(self) -> Sequence[Any]:
        return [self.out]

    def facts(self) -> Mapping[str, Any]:
        return {}


class NumpyPeer:
    """Kinds ``gemm.plain`` and ``gemm.linear``."""

    def describe(self) -> Mapping[str, Any]:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return {"library": f"NumPy, {blas['name']} {blas['version']}", "version": np.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("NumPy has no device to measure")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        if not case["kind"].startswith("gemm."):
            raise NotImplementedError(f"NumPy does not compute {case['kind']}")
        return Product(case["kind"], case["spec"])


def open_peer(options: Mapping[str, Any]) -> NumpyPeer:
    """No options."""
    return NumpyPeer()
