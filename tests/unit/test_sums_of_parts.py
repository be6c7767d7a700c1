"""Sums of gradients over parts of a batch grow from part to part in the kernels of a region."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.fusion.fuse import fuse
from tests.running import run_region
from tests.runtimes import THOROUGH, open_opencl

PARTS, ROWS, SIZE = 4, 40, 160
FLOAT = np.dtype(np.float32)
GRADIENT = 4 * SIZE * SIZE


def sums(phase: str) -> Region:
    """The gradient of a weight by parts: operands ``a0``, ``b0``, ..., added up one after other."""
    types: dict[str, TensorType] = {}
    nodes: list[RegionNode] = []

    def append(op: str, reads: tuple[str, ...], made: str, **attributes: int) -> None:
        bare = OpCall(op, tuple(types[name] for name in reads), attributes, version=21, name=made)
        call = OPERATORS[op].typed(bare)
        types[made] = call.output(0)
        nodes.append(RegionNode(call, reads, (made,), {"phase": phase}))

    for part in range(PARTS):
        types[f"x{part}"] = TensorType((ROWS, SIZE), FLOAT)
    for part in range(PARTS):
        append("Neg", (f"x{part}",), f"a{part}")
        append("Gemm", (f"a{part}", f"x{part}"), f"dw{part}", transA=1)
        if part:
            append("Add", ("dw0" if part == 1 else f"sum{part - 1}", f"dw{part}"), f"sum{part}")
    inputs = tuple(f"x{part}" for part in range(PARTS))
    return Region(tuple(nodes), inputs, (f"sum{PARTS - 1}",), types)


def feeds() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {f"x{p}": rng.standard_normal((ROWS, SIZE), np.float32) for p in range(PARTS)}


def test_a_sum_holds_two_terms_at_once_and_not_all() -> None:
    processor = open_opencl(THOROUGH[0])
    executable = compile_region(sums("backward"), processor.facts, processor.name)
    live = max(step.label.live - step.label.workspace for step in executable.steps)
    assert live <= 2 * GRADIENT + 2 * 4 * ROWS * SIZE
    (found,) = run_region(processor, sums("backward"), executable, feeds())
    expected = sum(-(x.T.astype(np.float64) @ x) for x in feeds().values())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_each_product_adds_itself_to_the_sum_before() -> None:
    """The one that comes first takes in nothing: its operands would wait for the second."""
    nodes = fuse(sums("backward"), open_opencl(THOROUGH[0]).facts).nodes
    products = [node for node in nodes if node.call.op_type != "Neg"]
    assert [node.outputs[0] for node in products] == ["dw0", "sum1", "sum2", "sum3"]


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_small_terms_of_a_sum_are_added_by_one_kernel(
    phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.test_sums_of_parts.SIZE", 16)
    nodes = fuse(sums(phase), open_opencl(THOROUGH[0]).facts).nodes
    added = [node for node in nodes if "sum" in node.outputs[0]]
    assert len(added) == 1
