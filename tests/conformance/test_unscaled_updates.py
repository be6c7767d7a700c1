"""Updates take in scaled gradients of float16, and one kernel looks at all gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, Region
from coexec.processors.opencl import compile as compiling
from coexec.processors.opencl.family import HALF
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.conformance.test_fusion import run_shared
from tests.random_regions import RegionDice, evaluated
from tests.running import run_region
from tests.runtimes import RUNTIMES, open_opencl

DOMAIN = "ai.onnx.preview.training"
SHAPES = ((70,), (3,), (5, 300), (2,))
STEPS: dict[str, tuple[int, dict[str, Any]]] = {
    "Momentum": (1, {"alpha": 0.9, "beta": 1.0, "mode": "nesterov", "norm_coefficient": 0.1}),
    "Adam": (2, {"epsilon": 1e-3}),
    "Adagrad": (1, {"epsilon": 1e-3}),
}
FLOAT = 1
"""ONNX's number of float32."""


def gradient_type(processor: OpenCLProcessor) -> np.dtype[np.generic]:
    return HALF if processor.facts.fp16 else np.dtype(np.float32)


def updates(step: str, dtype: np.dtype[np.generic]) -> tuple[Region, dict[str, Array]]:
    """Gradients of ``dtype``, converted, multiplied by a number and given to an optimizer."""
    states, attributes = STEPS[step]
    dice = RegionDice(f"updates {step}", exact=True)
    rate, count = dice.new(np.array(0.25, np.float32)), dice.new(np.array(3))
    factor = dice.new(np.array(1 / 512, np.float32))
    outputs: list[str] = []
    aliases: dict[str, str] = {}
    for number, shape in enumerate(SHAPES):
        x = dice.new(dice.numpy.standard_normal(shape, np.float32))
        flow = dice.new((512 * dice.numpy.standard_normal(shape)).astype(dtype))
        kept = [dice.new(dice.numpy.uniform(0.1, 1, shape).astype("f4")) for _ in range(states)]
        if dtype == HALF:
            (flow,) = dice.node("Cast", (flow,), {"to": FLOAT})
        pair = (flow, factor) if number % 2 else (factor, flow)
        (scaled,) = dice.node("Mul", pair)
        names = dice.node(
            f"{DOMAIN}::{step}", (rate, count, x, scaled, *kept), attributes, outputs=1 + states
        )
        outputs += names
        aliases |= dict(zip(names, (x, *kept), strict=True))
    region = replace(dice.region(0, 0), outputs=tuple(outputs), aliases=aliases)
    return region, dice.values


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("step", STEPS)
def test_an_update_reads_its_gradient_as_it_is(runtime: str, step: str) -> None:
    processor = open_opencl(runtime)
    region, values = updates(step, gradient_type(processor))
    executable = compiling.compile_region(region, processor.facts, processor.name)
    assert [each.label.operator for each in executable.steps] == [
        f"Mul+{DOMAIN}::{step}.{step.lower()}"
    ]
    expected = evaluated(region, values)
    for name, actual in run_shared(processor, region, executable, values).items():
        np.testing.assert_allclose(actual, expected[name], rtol=2e-6, atol=2e-6, err_msg=name)


def test_a_gradient_that_others_read_stays_converted() -> None:
    processor = open_opencl(RUNTIMES[0])
    region, _ = updates("Momentum", HALF)
    products = [node.outputs[0] for node in region.nodes if node.call.identifier == "Mul"]
    fused = fuse(replace(region, outputs=(*region.outputs, products[0])), processor.facts)
    kinds = [node.call.identifier for node in fused.nodes]
    assert kinds.count(f"{DOMAIN}::Momentum") == 1
    assert products[0] in {name for node in fused.nodes for name in node.outputs}


def test_an_update_takes_in_nothing_of_another_phase() -> None:
    """In front of the gate, where parameters do not change yet."""
    processor = open_opencl(RUNTIMES[0])
    region, _ = updates("Momentum", HALF)
    nodes = tuple(
        replace(node, provenance={"phase": "optimizer" if DOMAIN in call else "backward"})
        for node in region.nodes
        for call in [node.call.identifier]
    )
    fused = fuse(replace(region, nodes=nodes), processor.facts)
    kinds = [node.call.identifier for node in fused.nodes]
    assert kinds.count(f"{DOMAIN}::Momentum") == kinds.count("Mul") == len(SHAPES)


def magnitudes(dtype: np.dtype[np.generic], bad: float | None = None) -> tuple[Region, Any]:
    dice = RegionDice("magnitudes", exact=True)
    parts: list[str] = []
    for number, shape in enumerate(SHAPES):
        value = dice.numpy.standard_normal(shape).astype(dtype)
        if bad is not None and number == 2:
            value[3, 123] = bad
        parts += dice.node("coexec::Magnitude", (dice.new(value),))
    total = dice.node("Sum", tuple(parts))
    return replace(dice.region(0, 0), outputs=total), dice.values


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("bad", [None, np.inf, -np.inf, np.nan])
def test_the_magnitude_is_finite_exactly_where_all_gradients_are(
    runtime: str, bad: float | None
) -> None:
    processor = open_opencl(runtime)
    region, values = magnitudes(gradient_type(processor), bad)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    assert len(executable.steps) == 2
    (found,) = run_region(processor, region, executable, values)
    assert np.isfinite(found) == (bad is None)
    if bad is None:
        np.testing.assert_allclose(found, evaluated(region, values)[region.outputs[0]], rtol=1e-5)


def test_a_sum_of_float16_gradients_beyond_their_range_is_finite() -> None:
    dice = RegionDice("large", exact=True)
    (name,) = dice.node("coexec::Magnitude", (dice.new(np.full(1000, 60000, HALF)),))
    region = replace(dice.region(0, 0), outputs=(name,))
    assert evaluated(region, dice.values)[name] == np.float32(60_000_000)
