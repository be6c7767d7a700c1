"""Teams of work-items that divide the steps of a recurrent layer compute what one of them does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.recurrent_steps import StepsCall
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, variant_named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.kernels.recurrent_panels import Tiling
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from tests.running import expected_outputs, run_region
from tests.runtimes import DRIVERS, open_opencl

STEPS = {"LSTM": (4, 2), "GRU": (3, 1), "RNN": (1, 1)}
"""Gates and states of a cell."""


def drawn(
    cell: str, steps: int, samples: int, units: int, rng: np.random.Generator
) -> tuple[OpCall, list[Array | None]]:
    """Steps of a layer of one direction, and their operands."""
    gates, states = STEPS[cell]
    weights = Sample((1, gates * units, units), low=-(units**-0.5), high=units**-0.5)
    example = Example((Sample((steps, samples, gates * units)), weights), {}, 1 + states)
    operands = example.draw(rng)
    return example.call(OPERATORS[f"coexec::{cell}Steps"], operands), operands


def run(
    processor: OpenCLProcessor, call: OpCall, operands: list[Array | None], team: int
) -> list[Array]:
    """Outputs with teams of so many, of which a processor may have fewer."""
    variant = variant_named(KERNELS[call.identifier], "panels")
    assert variant is not None
    values = {**variant.defaults(call, processor.facts), "TEAM": team}
    region = Region.alone(call)
    chosen = always(Choice(variant, values))
    executable = compile_region(region, processor.facts, processor.name, chosen)
    named = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, named)


@pytest.mark.parametrize("runtime", DRIVERS)
@pytest.mark.parametrize("cell", STEPS)
@pytest.mark.parametrize(("steps", "units"), [(1, 16), (60, 33), (40, 130)])
def test_a_team_gives_every_bit_that_one_gives(
    runtime: str, cell: str, steps: int, units: int, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call, operands = drawn(cell, steps, 1, units, rng)
    alone = run(processor, call, operands, 1)
    for together in (run(processor, call, operands, 2) for _ in range(3)):
        for first, second in zip(alone, together, strict=True):
            np.testing.assert_array_equal(first, second)
    expected = expected_outputs(OPERATORS[call.identifier], call, operands)
    for found, wanted in zip(alone, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", DRIVERS)
def test_teams_meet_anew_in_each_run(runtime: str, rng: np.random.Generator) -> None:
    """Where weights are constants, counts are set once; whoever leaves last resets them."""
    processor = open_opencl(runtime)
    call, operands = drawn("LSTM", 50, 1, 128, rng)
    call = replace(call, constants={1: np.asarray(operands[1])})
    region = Region.alone(call)
    executable = processor.compile(region)
    named = {name: np.asarray(operands[int(name[1:])]) for name in executable.inputs}
    first = run_region(processor, region, executable, named)
    for _ in range(20):
        again = run_region(processor, region, executable, named)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)


def tiling(samples: int, units: int, cores: int, rng: np.random.Generator) -> Tiling:
    """The default one of an LSTM on so many compute units."""
    call, _ = drawn("LSTM", 2, samples, units, rng)
    facts = replace(open_opencl(DRIVERS[0]).facts, compute_units=cores, unit_kind="cpu")
    variant = KERNELS[call.identifier].variants[0]
    return Tiling.of(StepsCall.of(call), facts, variant.defaults(call, facts))


def test_cores_that_samples_leave_idle_join_teams(rng: np.random.Generator) -> None:
    assert tiling(1, 256, 2, rng).team == 2
    assert tiling(2, 256, 8, rng).team == 4
    assert tiling(8, 256, 8, rng).team == 1  # each has a sample of its own
    assert tiling(1, 256, 1, rng).team == 1  # nobody else is there
    assert tiling(1, 40, 8, rng).team == 1  # steps are over before two could meet
