"""Tiles of products with a matrix that never changes: few rows are wasted, and few panels read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.kernels.known import suited
from tests.runtimes import THOROUGH, open_opencl

FACTS = replace(open_opencl(THOROUGH[0]).facts, vector_bytes=64)
FLOAT = np.dtype("float32")


def product(rows: int) -> OpCall:
    operands = (TensorType((rows, 64), FLOAT), TensorType((64, 256), FLOAT))
    return OPERATORS["MatMul"].typed(OpCall("MatMul", operands, version=21))


@pytest.mark.parametrize(
    ("rows", "tile"), [(1, 1), (2, 2), (7, 4), (13, 5), (31, 4), (49, 5), (96, 6), (97, 6), (98, 6)]
)
def test_a_number_of_rows_without_a_divisor_is_not_computed_row_by_row(
    rows: int, tile: int
) -> None:
    assert suited(product(rows), FACTS)["ROWS"] == tile


def test_registers_of_32_bytes_hold_tiles_of_five_rows_at_most() -> None:
    small = replace(FACTS, vector_bytes=32)
    assert suited(product(97), small) == {"ROWS": 5, "WIDE": 2}
