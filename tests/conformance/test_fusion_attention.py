"""Attention written as products around a softmax, on every OpenCL runtime."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.fusion.fuse import fuse
from tests.random_regions import RegionDice, evaluated
from tests.running import assert_close, run_region
from tests.runtimes import RUNTIMES, open_opencl

HEADS, SIZE = 3, 32


class AttentionDice(RegionDice):
    """Regions around the attention of ``rows`` queries to ``columns`` keys."""

    def __init__(self, rows: int, columns: int, dtype: str = "float32") -> None:
        super().__init__(f"{rows} {columns}", exact=False, dtype=dtype)
        self.rows, self.columns = rows, columns

    def drawn(self, *shape: int) -> str:
        """A new operand."""
        return self.new(self.numpy.standard_normal(shape).astype(self.dtype))

    def written(
        self, scaling: str, mask: tuple[int, ...] | None, read_twice: bool = False
    ) -> Region:
        """As exporters write it; ``read_twice``: something else reads the weights."""
        query = self.drawn(2, HEADS, self.rows, SIZE)
        key, value = (self.drawn(2, HEADS, self.columns, SIZE) for _ in range(2))
        (turned,) = self.node("Transpose", (key,), {"perm": (0, 1, 3, 2)})
        scores = self.append("MatMul", (query, turned))
        if scaling:
            scores = self.append(scaling, (scores, self.constant(5.0 if scaling == "Div" else 0.2)))
        if mask is not None:
            scores = self.append("Add", (scores, self.drawn(*mask)))
        (weights,) = self.node("Softmax", (scores,), {"axis": -1})
        results = [self.append("MatMul", (weights, value))]
        if read_twice:
            results.append(self.append("Relu", (weights,)))
        inputs = tuple(name for name in self.values if name not in self.constants)
        return Region(tuple(self.nodes), inputs, tuple(results), self.types, self.constants, {})


def operators(region: Region, runtime: str) -> list[str]:
    """What is left once the region is fused."""
    return [node.call.identifier for node in fuse(region, open_opencl(runtime).facts).nodes]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("rows", "columns", "scaling", "mask"),
    [
        (1, 1, "", None),
        (1, 300, "Div", None),
        (1, 37, "Mul", (2, 1, 1, 37)),
        (5, 40, "Mul", (5, 40)),
        (2, 40, "", (2, HEADS, 2, 40)),
    ],
)
def test_few_queries_become_one_operator(
    runtime: str, rows: int, columns: int, scaling: str, mask: tuple[int, ...] | None
) -> None:
    dice = AttentionDice(rows, columns)
    region = dice.written(scaling, mask)
    assert operators(region, runtime) == ["Attention"]
    processor = open_opencl(runtime)
    executable = compile_region(region, processor.facts, processor.name)
    found = run_region(processor, region, executable, dice.values)
    expected = evaluated(region, dice.values)
    for name, array in zip(executable.outputs, found, strict=True):
        assert_close(array, expected[name], 1e-4, 1e-5)


@pytest.mark.parametrize("runtime", [n for n in RUNTIMES if open_opencl(n).facts.fp16])
@pytest.mark.parametrize("mask", [None, (2, 1, 1, 300)], ids=str)
def test_few_queries_of_float16_have_their_softmax_in_float32(
    runtime: str, mask: tuple[int, ...] | None
) -> None:
    dice = AttentionDice(1, 300, "float16")
    region = dice.written("Mul", mask)
    assert operators(region, runtime) == ["Attention"]
    processor = open_opencl(runtime)
    executable = compile_region(region, processor.facts, processor.name)
    (found,) = run_region(processor, region, executable, dice.values)
    assert found.dtype == np.float16
    expected = evaluated(region, dice.values)[region.outputs[0]]
    assert_close(found, expected, 1e-2, 2e-3)


@pytest.mark.parametrize("mask", [(), (1,), (2, 1, 1, 1)], ids=str)
def test_what_is_added_to_all_keys_alike_is_no_mask(mask: tuple[int, ...]) -> None:
    """A mask of Attention that is shorter than the keys leaves the others out."""
    region = AttentionDice(1, 37).written("Mul", mask)
    assert "Attention" not in operators(region, RUNTIMES[0])


@pytest.mark.parametrize(("rows", "read_twice"), [(20, False), (1, True)])
def test_products_stay_where_queries_are_many_or_weights_are_read(
    rows: int, read_twice: bool
) -> None:
    region = AttentionDice(rows, 40).written("Mul", None, read_twice)
    assert "Attention" not in operators(region, RUNTIMES[0])
