"""Random calls with random tuned values: every fast variant that takes one agrees with NumPy.

The examples of an operator try each code path once with default tuned values; here sizes, strides
and tuned values meet at random, from a fixed seed per operator.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.table import OPERATORS
from coexec.processors.find import open_processor
from coexec.processors.opencl import compile as compiling
from coexec.processors.opencl.family import Variant, nothing_special
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from tests.random_calls import MAKERS, Dice
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES

ROUNDS, CALLS = 2, 3
"""Draws of tuned values and element type, and calls for each: builds take longer than calls."""


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("identifier", MAKERS)
def test_random_calls_with_random_tuned_values(
    runtime: str, identifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = open_processor(runtime)
    assert isinstance(processor, OpenCLProcessor)
    op, family = OPERATORS[identifier], KERNELS[identifier]
    tried: set[str] = set()
    for number in range(ROUNDS):
        dice = Dice(f"{identifier} {number}")
        variants = [tuned(variant, dice) for variant in family.variants[:-1]]
        for _ in range(CALLS):
            example = MAKERS[identifier](dice)
            operands = example.draw(np.random.default_rng(dice.randrange(1 << 32)))
            call = example.call(op, operands)
            expected = expected_outputs(op, call, operands)
            for variant in variants:
                if variant.applies(call, processor.facts) is None:
                    only = replace(family, variants=(variant,))
                    monkeypatch.setattr(compiling, "KERNELS", {identifier: only})
                    assert_agrees(op, call, run(processor, call, operands), expected)
                    tried.add(variant.name)
    assert tried


def tuned(variant: Variant, dice: Dice) -> Variant:
    """``variant`` with one random value for each tunable."""
    space = {name: (dice.choice(values),) for name, values in variant.space.items()}
    return replace(variant, space=space, suited=nothing_special)


def run(processor: OpenCLProcessor, call: OpCall, operands: list[Array | None]) -> list[Array]:
    region = Region.alone(call)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, executable, values)
