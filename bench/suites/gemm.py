"""Matrix products: squares, and few rows times the weights of fully connected layers."""

from __future__ import annotations

from bench.case import BEST, KEEP_MEMORY, Case, Suite
from bench.operands import operand

SQUARES = (256, 512, 1024, 2048)
LAYERS = ((784, 500), (4096, 1000), (512, 10), (2048, 1000))
"""(inputs, outputs) of fully connected layers."""
ROWS = (1, 8, 32, 64)
FLOAT = 4


def _bytes(m: int, k: int, n: int) -> int:
    return FLOAT * (m * k + k * n + m * n)


def _square(n: int) -> Case:
    operands = {"a": operand((n, n)), "b": operand((n, n))}
    spec = {"operands": operands}
    return Case(
        f"{n} x {n} x {n}",
        "gemm.plain",
        spec,
        "square",
        2 * n**3,
        _bytes(n, n, n),
        quick=n in (512, 1024),
    )


def _layer(m: int, k: int, n: int) -> Case:
    """y = x w^T with weights as PyTorch and ONNX's exporters keep them: (outputs, inputs)."""
    spec = {"operands": {"x": operand((m, k)), "w": operand((n, k))}}
    return Case(
        f"{m} x {k} -> {n}",
        "gemm.linear",
        spec,
        "skinny",
        2 * m * k * n,
        _bytes(m, k, n),
        quick=m in (1, 32) and k in (784, 2048),
    )


SUITE = Suite(
    "gemm",
    "Matrix products (GFLOP/s of the best call)",
    (*map(_square, SQUARES), *(_layer(m, k, n) for k, n in LAYERS for m in ROWS)),
    statistic=BEST,
    tolerance=1e-4,
    environment=KEEP_MEMORY,
    roof="flop",
)
