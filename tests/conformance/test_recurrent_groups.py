"""Steps of recurrent layers as GPUs take them: a work-group for a few samples of a direction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example
from coexec.ops.recurrent_steps import StepsCall, steps_examples
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, variant_named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import KernelStep
from coexec.processors.opencl.kernels.recurrent_groups import Groups
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

LSTM, GRU, RNN = (f"coexec::{cell}Steps" for cell in ("LSTM", "GRU", "RNN"))
WHOLE = {"ROWS": 4, "LOCAL": 256, "STAGED": 1}


def whole_form(cell: str, saved: bool) -> Example:
    """Six steps of 17 samples and 33 units, both directions, with every operand that a cell has."""
    given = ("h0", "c0", "peepholes", "shift", "lengths")
    forms = [{"given": given, "direction": "bidirectional"}] * 5
    return steps_examples(cell, forms, saved)[4]


def check(runtime: str, identifier: str, example: Example, values: dict[str, int]) -> KernelStep:
    """Results are the reference's; the launch that takes the steps."""
    rng, op = np.random.default_rng(5), OPERATORS[identifier]
    processor = open_opencl(runtime)
    operands = example.draw(rng)
    call = example.call(op, operands)
    variant = variant_named(KERNELS[identifier], "groups")
    assert variant is not None
    chosen = always(Choice(variant, values))
    executable = compile_region(Region.alone(call), processor.facts, processor.name, chosen)
    given = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    actual = run_region(processor, Region.alone(call), executable, given)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))
    step = executable.steps[-1]
    assert isinstance(step, KernelStep)
    return step


@pytest.mark.parametrize("staged", [1, 0])
@pytest.mark.parametrize(("rows", "local"), [(4, 256), (1, 64), (8, 128)])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_steps_of_every_division(
    runtime: str, cell: str, rows: int, local: int, staged: int
) -> None:
    """Samples that do not divide into groups, more gates than items, items without a gate."""
    values = {"ROWS": rows, "LOCAL": local, "STAGED": staged}
    step = check(runtime, f"coexec::{cell}Steps", whole_form(cell, saved=True), values)
    assert step.local_size is not None
    assert step.global_size[0] // step.local_size[0] == 2 * -(-17 // rows)


@pytest.mark.parametrize("staged", [1, 0])
@pytest.mark.parametrize(("rows", "local"), [(4, 256), (1, 64), (8, 128)])
@pytest.mark.parametrize("identifier", [LSTM, GRU, RNN])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_gradients_of_every_division(
    runtime: str, identifier: str, rows: int, local: int, staged: int
) -> None:
    examples = OPERATORS[f"{identifier}Grad"].examples
    values = {"ROWS": rows, "LOCAL": local, "STAGED": staged}
    for example in examples[:3]:
        check(runtime, f"{identifier}Grad", example, values)


@pytest.mark.parametrize("end", ["", "Grad"])
@pytest.mark.parametrize("identifier", [LSTM, GRU, RNN])
@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name not in THOROUGH])
def test_steps_on_other_runtimes(runtime: str, identifier: str, end: str) -> None:
    check(runtime, identifier + end, OPERATORS[identifier + end].examples[0], WHOLE)


def call_of(batch: int, units: int, direction: str = "forward") -> OpCall:
    """Steps of an LSTM, which is not run."""
    d = 1 + (direction == "bidirectional")
    shapes = (2, batch, d * 4 * units), (d, 4 * units, units)
    operands: list[Array | None] = [np.zeros(shape, np.float32) for shape in shapes]
    example = Example(tuple(operands), {"direction": direction}, 3)
    return example.call(OPERATORS[LSTM], operands)


@pytest.mark.parametrize(
    ("batch", "direction", "rows"),
    [(1, "forward", 1), (8, "forward", 1), (16, "forward", 2), (16, "bidirectional", 4)],
)
def test_groups_take_as_many_samples_as_leave_one_for_each_unit(
    batch: int, direction: str, rows: int
) -> None:
    facts = replace(open_opencl(f"{THOROUGH[0]}?unit=gpu").facts, compute_units=8)
    call = call_of(batch, 64, direction)
    variant, _ = KERNELS[LSTM].choose(call, facts)
    assert variant is not None
    assert variant.name == "groups"
    assert variant.defaults(call, facts) == {"ROWS": rows, "LOCAL": 256, "STAGED": 1}


def test_what_local_memory_does_not_hold_lies_in_plain_memory() -> None:
    facts = replace(open_opencl(f"{THOROUGH[0]}?unit=gpu").facts, local_bytes=1 << 15)
    fits, large = StepsCall.of(call_of(1, 1000)), StepsCall.of(call_of(1, 2000))
    values = {"ROWS": 1, "LOCAL": 256, "STAGED": 1}
    assert Groups.of(fits, facts, values).staged
    assert not Groups.of(large, facts, values).staged
    plain = replace(facts, on_chip=False)
    variant = variant_named(KERNELS[LSTM], "groups")
    assert variant is not None
    assert variant.defaults(call_of(1, 64), plain)["STAGED"] == 0
