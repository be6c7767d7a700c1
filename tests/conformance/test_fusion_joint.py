"""Normalisations that meet others, with activations, on every OpenCL runtime: with no others."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.ops.batch_norm_joint import words_of
from tests.conformance.test_fusion_norm import NormalisationDice, check
from tests.runtimes import RUNTIMES, open_opencl

FUSED, FUSED_GRAD = "coexec.opencl::JointNormalization", "coexec.opencl::JointNormalizationGrad"
SHAPES = [(3, 9, 5, 7), (4, 5, 40, 31)]


def place(dice: NormalisationDice) -> str:
    """Where nobody has been yet."""
    return dice.new(np.zeros(words_of(1, dice.shape[1]), np.int32))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("activation", "residual"), [("Relu", True), ("Clip", False)])
def test_it_takes_in_the_activation_behind_it(
    runtime: str, shape: tuple[int, ...], activation: str, residual: bool
) -> None:
    dice = NormalisationDice(f"joint {shape} {activation}", shape)
    other = dice.append("Neg", (dice.drawn(*shape),))
    vectors = [dice.drawn(shape[1], positive=True) for _ in range(4)]
    operands = (dice.drawn(*shape), *vectors[:2], place(dice), *vectors[2:])
    how = {"counts": (shape[0],), "momentum": 0.75}
    x, *statistics = dice.node("coexec::JointNormalization", operands, how, 5)
    y = dice.activated(dice.append("Add", (other, x)) if residual else x, activation)
    outputs = (y, *statistics) if residual else (y, other, *statistics)
    check(open_opencl(runtime), dice.with_outputs(*outputs), dice, FUSED)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_its_gradient_takes_in_the_activation_in_front_of_it(
    runtime: str, shape: tuple[int, ...], shared: bool
) -> None:
    """All operands die there: dX and what else is made lie over them."""
    dice = NormalisationDice(f"joint gradient {shape}", shape)
    x, y, dy = (dice.append("Neg", (dice.drawn(*shape),)) for _ in range(3))
    read_before = dice.append("Exp", (dy,))  # else the mask would join the chain that makes dY
    test = dice.append("Greater", (y, dice.constant(0.0)))
    flow = dice.append("Where", (test, dy, dice.constant(0.0)))
    scale, mean, variance = (dice.drawn(shape[1], positive=True) for _ in range(3))
    how = {"counts": (shape[0],), "count": shape[0] * int(np.prod(shape[2:]))}
    operands = (x, scale, flow, mean, variance, place(dice))
    dx, dscale, dbias = dice.node("coexec::JointNormalizationGrad", operands, how, 3)
    results = [dice.append("Exp", (dx,)), *([dice.append("Exp", (flow,))] if shared else [])]
    region = dice.with_outputs(read_before, *results, dscale, dbias)
    check(open_opencl(runtime), region, dice, FUSED_GRAD)
