"""Products and convolutions that finish their results, on every OpenCL runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import OpCall, Region
from coexec.processors.opencl.choose import Choice, Chooser, by_default, named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.random_regions import RegionDice, evaluated
from tests.running import assert_close, run_region
from tests.runtimes import RUNTIMES, open_opencl

FINISHED, BIASED = "coexec.opencl::Finished", "coexec.opencl::BiasedMatMul"


def preferring(name: str) -> Chooser:
    """The variant of that name for convolutions and products, defaults for all else."""

    def choose(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        return (named(name) if family.name in ("conv", "gemm") else by_default)(family, call, facts)

    return choose


class ProductDice(RegionDice):
    """Regions of a convolution or product with elementwise operators behind it."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed, exact=False)

    def drawn(self, *shape: int) -> str:
        """A new operand."""
        return self.new(self.numpy.standard_normal(shape, np.float32))

    def conv(
        self, x: tuple[int, ...], w: tuple[int, ...], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """A convolution with a bias."""
        operands = (self.drawn(*x), self.drawn(*w), self.drawn(w[0]))
        return self.append("Conv", operands, attributes or {})

    def clip(self, x: str) -> str:
        return self.append("Clip", (x, self.constant(-0.5), self.constant(1.5)))

    def residual(self, x: str) -> str:
        """Relu of the sum with another tensor, which the region computes."""
        other = self.append("Neg", (self.drawn(*self.types[x].shape),))
        return self.append("Relu", (self.append("Add", (other, x)),))

    def with_outputs(self, *names: str) -> Region:
        """The region so far with these results."""
        inputs = tuple(name for name in self.values if name not in self.constants)
        return Region(tuple(self.nodes), inputs, names, self.types, self.constants, {})


def fused_kinds(region: Region, processor: OpenCLProcessor) -> list[str]:
    return [node.call.identifier for node in fuse(region, processor.facts).nodes]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    # Planes of no whole vectors; more channels than a panel of 1024 holds: two blocks.
    "packed": ((2, 5, 6, 7), (7, 5, 3, 3), {"pads": [1, 1, 1, 1]}),
    "packed 1x1": ((1, 640, 4, 5), (9, 640, 1, 1), {}),
    "depthwise": ((2, 6, 9, 5), (6, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 6}),
    "depthwise s2": ((1, 4, 11, 21), (4, 1, 3, 3), {"strides": [2, 2], "group": 4}),
    "depthwise lanes": ((2, 20, 3, 3), (20, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 20}),
    "winograd": ((1, 16, 15, 18), (18, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "naive": ((1, 3, 5, 5), (4, 3, 2, 2), {}),
}


FINISHES = (
    ("packed", "clip"),
    ("packed", "residual"),
    ("packed 1x1", "residual"),
    ("depthwise", "clip"),
    ("depthwise s2", "residual"),
    ("depthwise lanes", "residual"),
    ("winograd", "clip"),
    # These kernels finish nothing, or values alone: the chain's kernel follows.
    ("winograd", "residual"),
    ("naive", "clip"),
)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("case", "finish"), FINISHES)
def test_a_convolution_finishes_its_result(runtime: str, case: str, finish: str) -> None:
    processor = open_opencl(runtime)
    x, w, attributes = CONVOLUTIONS[case]
    dice = ProductDice(case)
    y = dice.conv(x, w, attributes)
    region = dice.with_outputs(dice.clip(y) if finish == "clip" else dice.residual(y))
    check(processor, region, dice, preferring(case.split(maxsplit=1)[0]))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variant", ["packed", "dots"])
def test_a_product_finishes_its_result(runtime: str, variant: str) -> None:
    processor = open_opencl(runtime)
    dice = ProductDice("gemm")
    operands = (dice.drawn(9, 33), dice.drawn(30, 33), dice.drawn(30))
    y = dice.residual(dice.append("Gemm", operands, {"transB": 1, "alpha": 0.5}))
    check(processor, dice.with_outputs(y), dice, preferring(variant))


Shape = tuple[int, ...]
LINEAR: dict[str, tuple[str, Shape, Shape, Shape]] = {
    "images of tokens": ("packed", (3, 5, 33), (33, 30), (30,)),
    "matrices of their own": ("packed", (2, 9, 7), (2, 7, 20), (1, 1, 20)),
    "few rows": ("few_rows", (1, 4, 33), (33, 30), (30,)),
    "one element at a time": ("naive", (3, 4), (4, 5), (1, 5)),
}
"""A variant, the operands of a MatMul, and a vector for its rows."""


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", LINEAR)
def test_a_product_adds_a_vector_to_its_rows(runtime: str, case: str) -> None:
    processor = open_opencl(runtime)
    variant, *shapes = LINEAR[case]
    dice = ProductDice(case)
    a, b, vector = (dice.drawn(*shape) for shape in shapes)
    y = dice.append("Add", (vector, dice.append("MatMul", (a, b))))
    region = dice.with_outputs(y)
    assert fused_kinds(region, processor) == [BIASED]
    compare(processor, region, dice, preferring(variant))
    check(processor, dice.with_outputs(dice.clip(y)), dice, preferring(variant))


@pytest.mark.parametrize(
    ("a", "b", "other"),
    [
        ((4, 30, 33), (33,), (30,)),  # along the batch of a product with a vector
        ((3, 5), (5, 4), (3, 1)),  # a vector for the columns
        ((4, 5), (5, 4), (4, 4)),
        ((1, 5), (5, 1), (6, 1)),  # makes the result larger
    ],
)
def test_only_vectors_along_rows_are_added_by_a_product(a: Shape, b: Shape, other: Shape) -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("other")
    y = dice.append("MatMul", (dice.drawn(*a), dice.drawn(*b)))
    region = dice.with_outputs(dice.append("Add", (y, dice.drawn(*other))))
    assert BIASED not in fused_kinds(region, processor)


def check(processor: OpenCLProcessor, region: Region, dice: ProductDice, choose: Chooser) -> None:
    assert FINISHED in fused_kinds(region, processor)
    compare(processor, region, dice, choose)


def compare(processor: OpenCLProcessor, region: Region, dice: ProductDice, choose: Chooser) -> None:
    expected = evaluated(region, dice.values)
    executable = compile_region(region, processor.facts, processor.name, choose)
    found = run_region(processor, region, executable, dice.values)
    for name, actual in zip(region.outputs, found, strict=True):
        assert_close(actual, expected[name], 1e-4, 1e-4)


def test_a_result_that_others_read_is_not_fused_away() -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("read")
    y = dice.conv(*CONVOLUTIONS["packed"][:2])
    region = dice.with_outputs(y, dice.clip(y))
    assert fused_kinds(region, processor) == ["Conv", "Clip"]


def test_operands_that_are_broadcast_are_not_fused() -> None:
    """An epilogue reads tensors like the result only."""
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("broadcast")
    y = dice.conv(*CONVOLUTIONS["packed"][:2])
    region = dice.with_outputs(dice.append("Add", (y, dice.drawn(1, 7, 1, 1))))
    assert FINISHED not in fused_kinds(region, processor)


def test_kernels_that_finish_nothing_account_for_their_own_work() -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("work")
    region = dice.with_outputs(dice.clip(dice.conv(*CONVOLUTIONS["naive"])))
    executable = compile_region(region, processor.facts, processor.name, preferring("naive"))
    size = region.types[region.outputs[0]].size
    assert [step.label.flop for step in executable.steps] == [2 * size * 3 * 2 * 2, size]


def test_two_convolutions_into_one_sum_finish_it_once() -> None:
    """The later product of a sum of two reads the other as a tensor like its result."""
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("two")
    first, second = (dice.conv((1, 3, 8, 8), (4, 3, 1, 1)) for _ in range(2))
    region = dice.with_outputs(dice.append("Relu", (dice.append("Add", (first, second)),)))
    assert sorted(fused_kinds(region, processor)) == ["Conv", FINISHED]
    executable = compile_region(region, processor.facts, processor.name)
    assert len(executable.steps) == 2
    labels = [step.label.operator.split(".")[0] for step in executable.steps]
    assert sorted(labels) == ["Conv", "Conv+Add+Relu"]
    check(processor, region, dice, by_default)


def test_phases_do_not_share_a_kernel() -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = ProductDice("phases")
    region = dice.with_outputs(dice.clip(dice.conv(*CONVOLUTIONS["packed"][:2])))
    phased = tuple(
        replace(node, provenance={"phase": phase})
        for node, phase in zip(region.nodes, ("forward", "backward"), strict=True)
    )
    assert fused_kinds(replace(region, nodes=phased), processor) == ["Conv", "Clip"]


def test_a_sum_of_two_operands_finishes_as_an_addition_does() -> None:
    """Caffe2 exports residuals as Sum, which takes any number; three are not taken in."""
    kinds = []
    for more in (1, 2):
        dice, processor = ProductDice(f"sum {more}"), open_opencl(RUNTIMES[0])
        y = dice.conv((1, 4, 5, 5), (4, 4, 1, 1))
        others = [dice.drawn(1, 4, 5, 5) for _ in range(more)]
        region = dice.with_outputs(dice.append("Sum", (y, *others)))
        kinds.append(fused_kinds(region, processor))
    assert kinds == [[FINISHED], ["Conv", "Sum"]]
