"""Conversions of small tensors that a region is given share a kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.processors.opencl import compile as compiling
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.casts import CASTS, MOST_TENSORS, batch_casts
from tests.random_regions import RegionDice, evaluated
from tests.running import run_region
from tests.runtimes import RUNTIMES, open_opencl

HALF, FLOAT = 10, 1
"""ONNX's numbers of the types."""


def conversions(shapes: list[tuple[int, ...]], to: int) -> tuple[Region, RegionDice]:
    dice = RegionDice("casts", exact=True)
    source = "float32" if to == HALF else "float16"
    names: list[str] = []
    for shape in shapes:
        operand = dice.new(dice.numpy.standard_normal(shape).astype(source))
        names += dice.node("Cast", (operand,), {"to": to})
    return replace(dice.region(0, 0), outputs=tuple(names)), dice


def facts() -> DeviceFacts:
    return open_opencl(RUNTIMES[0]).facts


@pytest.mark.parametrize("runtime", [n for n in RUNTIMES if open_opencl(n).facts.fp16])
@pytest.mark.parametrize("to", [HALF, FLOAT])
def test_small_tensors_share_a_kernel(runtime: str, to: int) -> None:
    processor = open_opencl(runtime)
    region, dice = conversions([(70,), (3,), (), (5, 300), (4096,)], to)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    assert [step.label.operator for step in executable.steps] == ["Cast.casts"]
    expected = evaluated(region, dice.values)
    found = run_region(processor, region, executable, dice.values)
    for name, actual in zip(executable.outputs, found, strict=True):
        np.testing.assert_array_equal(actual, expected[name])


def test_a_batch_holds_no_more_than_arguments_allow() -> None:
    region, _ = conversions([(8,)] * (2 * MOST_TENSORS + 1), HALF)
    batched = batch_casts(region, facts())
    assert [len(node.inputs) for node in batched.nodes] == [MOST_TENSORS, MOST_TENSORS, 1]
    assert batched.nodes[-1].call.identifier == "Cast"


def test_large_tensors_and_those_made_in_the_region_are_converted_where_they_are_read() -> None:
    dice = RegionDice("apart", exact=True)
    dice.shape = (8,)
    large = dice.new(np.ones(1 << 16, np.float32))
    made = dice.append("Relu", (dice.new(np.ones(8, np.float32)),))
    small = dice.new(np.ones(8, np.float32))
    names = [dice.node("Cast", (name,), {"to": HALF})[0] for name in (large, made, small)]
    region = replace(dice.region(0, 0), outputs=tuple(names))
    kinds = [node.call.identifier for node in batch_casts(region, facts()).nodes]
    assert CASTS.identifier not in kinds


def test_phases_are_converted_apart() -> None:
    region, _ = conversions([(8,)] * 4, HALF)
    phases = ("forward", "forward", "recompute", "recompute")
    nodes = tuple(
        replace(node, provenance={"phase": phase})
        for node, phase in zip(region.nodes, phases, strict=True)
    )
    batched = batch_casts(replace(region, nodes=nodes), facts())
    assert [node.call.identifier for node in batched.nodes] == [CASTS.identifier] * 2
    assert [node.provenance["phase"] for node in batched.nodes] == ["forward", "recompute"]
