"""How blocked products are divided: read once what is large, keep all compute units busy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import by_default
from coexec.processors.opencl.kernels.gemm import FAMILY, suited_packing
from coexec.processors.opencl.kernels.packed_division import Division, Extent, divide
from tests.runtimes import THOROUGH, open_opencl

UNITS, SLOTS, MOST_GROUP = 2, 4, 8
FEW_COLUMNS = Extent(
    rows=512, panels=4, batches=1, height=6, columns=16, left_bytes=4 << 20, flat=True
)


def divided(extent: Extent) -> Division:
    return divide(extent, UNITS, SLOTS, MOST_GROUP)


def task_count(extent: Extent) -> int:
    d = divided(extent)
    return -(-extent.panels // d.group) * -(-extent.rows // d.rows) * extent.batches


def test_rows_are_divided_where_panels_are_few() -> None:
    """Each task then reads rows of its own, once."""
    assert divided(FEW_COLUMNS).group == FEW_COLUMNS.panels
    assert task_count(FEW_COLUMNS) >= UNITS * SLOTS


def test_panels_that_are_gathered_are_gathered_by_fewer_tasks() -> None:
    gathered = replace(FEW_COLUMNS, rows=132, flat=False)
    assert divided(gathered).rows >= divided(replace(gathered, flat=True)).rows
    assert task_count(gathered) < task_count(FEW_COLUMNS)


def test_many_panels_take_all_rows() -> None:
    many = replace(FEW_COLUMNS, rows=128, panels=1000)
    assert divided(many) == Division(group=8, rows=132)


def test_batches_keep_units_busy_without_dividing_rows() -> None:
    small = replace(FEW_COLUMNS, rows=48, batches=64, left_bytes=1 << 12)
    assert divided(small) == Division(group=4, rows=48)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_little_is_one_tile_at_least(rows: int) -> None:
    d = divided(replace(FEW_COLUMNS, rows=rows, panels=1))
    assert d.group == 1
    assert d.rows in (6, 12)


def test_a_transposed_operand_that_each_task_reads_once_is_packed_by_the_tasks() -> None:
    """Of 192 columns one task has all; of 1024 each tile is needed often, and packed before."""
    facts = replace(open_opencl(THOROUGH[0]).facts, vector_bytes=64, unit_kind="cpu")

    def weight_gradient(columns: int) -> OpCall:
        a, b = (TensorType((1024, size), np.dtype(np.float32)) for size in (768, columns))
        return OPERATORS["Gemm"].typed(OpCall("Gemm", (a, b), {"transA": 1}, version=21))

    few, many = weight_gradient(192), weight_gradient(1024)
    assert suited_packing(few, facts)["APART"] == 0
    assert "APART" not in suited_packing(many, facts)
    scratch = [sum(by_default(FAMILY, c, facts).lower(c, facts).scratch) for c in (few, many)]
    assert scratch[0] < few.input(0).nbytes < scratch[1]
