"""Batch normalisation fused with activations, on every OpenCL runtime, against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import ARGUMENT, KernelStep, Slot
from coexec.processors.opencl.fusion.normalisation import fuse_normalisation
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.random_regions import RegionDice, evaluated
from tests.running import assert_close, run_region
from tests.runtimes import DRIVERS, RUNTIMES, open_opencl

FUSED, FUSED_GRAD = "coexec.opencl::BatchNormalization", "coexec.opencl::BatchNormalizationGrad"
FUSED_SUMS = "coexec.opencl::BatchNormalizationSums"
WHOLE, SLICES = (3, 9, 5, 7), (4, 2, 40, 31)
"""Shapes of many small channels and of few large ones: each has kernels of its own."""
LAID_OUT = [*RUNTIMES, *(f"{name}?unit=gpu" for name in DRIVERS)]
"""Runtimes with the kernels of their processor, and with those of a GPU."""


class NormalisationDice(RegionDice):
    """Regions around a batch normalisation of a tensor of ``shape``."""

    def __init__(self, seed: str, shape: tuple[int, ...]) -> None:
        super().__init__(seed, exact=False)
        self.shape = shape

    def drawn(self, *shape: int, positive: bool = False) -> str:
        """A new operand."""
        values = self.numpy.standard_normal(shape).astype(np.float32)
        return self.new(np.abs(values) + np.float32(0.5) if positive else values)

    def normalised(self, training: bool) -> tuple[str, ...]:
        """A normalisation; its results."""
        channels = self.shape[1]
        signs = (False, True, False, False, True)
        operands = [
            self.drawn(*(self.shape if i == 0 else (channels,)), positive=positive)
            for i, positive in enumerate(signs)
        ]
        attributes = {"training_mode": 1, "momentum": 0.75} if training else {}
        return self.node("BatchNormalization", operands, attributes, 3 if training else 1)

    def activated(self, x: str, activation: str) -> str:
        """``x`` cut off."""
        if activation == "Relu":
            return self.append("Relu", (x,))
        return self.append("Clip", (x, self.constant(-0.5), self.constant(0.75)))

    def masked(self, y: str, activation: str) -> str:
        """The gradient in front of an activation, as autodiff writes it."""
        above = self.append("Greater", (y, self.constant(0.0 if activation == "Relu" else -0.5)))
        mask = above
        if activation == "Clip":
            mask = self.append("And", (above, self.append("Less", (y, self.constant(0.75)))))
        return self.append("Where", (mask, self.drawn(*self.shape), self.constant(0.0)))

    def back(self, flow: str) -> tuple[str, ...]:
        """The gradient of a normalisation."""
        operands = (self.drawn(*self.shape), self.drawn(self.shape[1], positive=True), flow)
        return self.node("coexec::BatchNormalizationGrad", operands, outputs=3)

    def with_outputs(self, *names: str) -> Region:
        """The region so far with these results."""
        inputs = tuple(name for name in self.values if name not in self.constants)
        return Region(tuple(self.nodes), inputs, names, self.types, self.constants, {})


def check(processor: OpenCLProcessor, region: Region, dice: NormalisationDice, kind: str) -> None:
    fused = fuse_normalisation(region, processor.facts)
    assert kind in [node.call.identifier for node in fused.nodes]
    executable = compile_region(region, processor.facts, processor.name)
    expected = evaluated(region, dice.values)
    found = run_region(processor, region, executable, dice.values)
    for name, actual in zip(region.outputs, found, strict=True):
        assert_close(actual, expected[name], 1e-4, 1e-4)


@pytest.mark.parametrize("runtime", LAID_OUT)
@pytest.mark.parametrize(
    ("shape", "training", "activation", "residual"),
    [
        (WHOLE, True, "Relu", True),
        (SLICES, True, "Clip", False),
        (WHOLE, False, "Clip", True),
    ],
)
def test_normalisation_takes_in_the_activation_behind_it(
    runtime: str, shape: tuple[int, ...], training: bool, activation: str, residual: bool
) -> None:
    dice = NormalisationDice(f"forward {shape} {training}", shape)
    # Computed in the region, so that the result may take its place.
    other = dice.append("Neg", (dice.drawn(*shape),))
    x, *statistics = dice.normalised(training)
    y = dice.activated(dice.append("Add", (other, x)) if residual else x, activation)
    outputs = (y, *statistics) if residual else (y, other, *statistics)
    check(open_opencl(runtime), dice.with_outputs(*outputs), dice, FUSED)


@pytest.mark.parametrize("runtime", LAID_OUT)
@pytest.mark.parametrize(
    ("shape", "activation", "shared"), [(WHOLE, "Relu", True), (SLICES, "Clip", False)]
)
def test_its_gradient_takes_in_the_activation_in_front_of_it(
    runtime: str, shape: tuple[int, ...], activation: str, shared: bool
) -> None:
    dice = NormalisationDice(f"backward {shape}", shape)
    flow = dice.masked(dice.drawn(*shape), activation)
    outputs = dice.back(flow)
    more = (dice.append("Neg", (flow,)),) if shared else ()
    check(open_opencl(runtime), dice.with_outputs(*outputs, *more), dice, FUSED_GRAD)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_sums_over_a_share_take_in_the_activation_and_keep_its_gradient(runtime: str) -> None:
    """Both operands of the mask die there: the gradient behind it lies over the one in front."""
    dice = NormalisationDice("sums", LARGE)
    x, dy = (dice.append("Neg", (dice.drawn(*LARGE),)) for _ in range(2))
    read_before = dice.append("Exp", (dy,))  # else the mask would join the chain that makes dY
    test = dice.append("Greater", (dice.drawn(*LARGE), dice.constant(0.0)))
    flow = dice.append("Where", (test, dy, dice.constant(0.0)))
    operands = (x, dice.drawn(LARGE[1]), flow)
    outputs = dice.node("coexec::BatchNormalizationSums", operands, outputs=2)
    region = dice.with_outputs(*outputs, read_before, dice.append("Exp", (flow,)))
    check(open_opencl(runtime), region, dice, FUSED_SUMS)


def test_what_others_read_is_not_fused_away() -> None:
    """The normalised value is a result too: the activation stays a kernel of its own."""
    processor = open_opencl(RUNTIMES[0])
    dice = NormalisationDice("read", WHOLE)
    x, *_ = dice.normalised(training=True)
    y = dice.activated(x, "Relu")
    region = dice.with_outputs(x, y)
    assert fuse_normalisation(region, processor.facts) is region


def test_bounds_that_are_not_known_are_not_fused() -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = NormalisationDice("bounds", WHOLE)
    x, *_ = dice.normalised(training=False)
    y = dice.append("Clip", (x, dice.drawn(), dice.constant(1.0)))
    region = dice.with_outputs(y)
    assert fuse_normalisation(region, processor.facts) is region


FLAT, LARGE = (3, 9, 5, 7), (2, 5, 13, 17)
"""Shapes of small planes and of whole channels; ``SLICES`` are those of parts of channels."""


@pytest.mark.parametrize("runtime", LAID_OUT)
@pytest.mark.parametrize(
    ("shape", "shared"), [(FLAT, False), (LARGE, True), (SLICES, False)], ids=str
)
def test_gradients_take_the_places_of_their_operands(
    runtime: str, shape: tuple[int, ...], shared: bool
) -> None:
    """All operands die there: dX and what else is made lie over them, with the same numbers."""
    dice = NormalisationDice(f"in place {shape}", shape)
    x, y, dy = (dice.append("Neg", (dice.drawn(*shape),)) for _ in range(3))
    read_before = dice.append("Exp", (dy,))  # else the mask would join the chain that makes dY
    test = dice.append("Greater", (y, dice.constant(0.0)))
    flow = dice.append("Where", (test, dy, dice.constant(0.0)))
    scale = dice.drawn(shape[1], positive=True)
    dx, dscale, dbias = dice.node("coexec::BatchNormalizationGrad", (x, scale, flow), outputs=3)
    results = [dice.append("Exp", (dx,)), *([dice.append("Exp", (flow,))] if shared else [])]
    region = dice.with_outputs(read_before, *results, dscale, dbias)
    processor = open_opencl(runtime)
    check(processor, region, dice, FUSED_GRAD)
    executable = compile_region(region, processor.facts, processor.name)
    step = next(s for s in executable.steps if "Grad" in s.label.operator)
    assert step.label.live - step.label.workspace <= 3 * (region.types[x].nbytes + 4096)


@pytest.mark.parametrize(
    ("shape", "variant"),
    [(WHOLE, None), (SLICES, None), ((2, 8, 13, 13), None), (SLICES, "naive")],
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_normalisation_is_written_over_an_operand_that_dies(
    runtime: str, shape: tuple[int, ...], variant: str | None
) -> None:
    processor = open_opencl(runtime)
    dice = NormalisationDice(f"in place {shape}", shape)
    x = dice.append("Neg", (dice.drawn(*shape),))
    operands = (x, *(dice.drawn(shape[1], positive=i in (1, 4)) for i in range(1, 5)))
    results = dice.node("BatchNormalization", operands, {"training_mode": 1}, 3)
    region = dice.with_outputs(*results)
    executable = compile_region(region, processor.facts, processor.name, variant)
    first = executable.steps[0]
    assert isinstance(first, KernelStep)
    places = [arg.index for arg in first.args if isinstance(arg, Slot) and arg.kind == ARGUMENT]
    assert len(executable.inputs) in places  # x is made where the result will stand
    expected = evaluated(region, dice.values)
    found = run_region(processor, region, executable, dice.values)
    for name, actual in zip(results, found, strict=True):
        assert_close(actual, expected[name], 1e-4, 1e-4)
