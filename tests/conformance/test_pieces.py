"""Tensors side by side in one and one cut into several, in one launch each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import OpenCLExecutable
from coexec.processors.opencl.kernels import pieces
from coexec.processors.opencl.kernels.movement import FAMILY
from tests.running import expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

CUTS = np.array([4, 21, 9], np.int64)
PARTS = tuple(Sample((3, int(n), 7)) for n in CUTS)
CASES = {
    "rows side by side": ("Concat", Example(PARTS, {"axis": 1})),
    "tensors behind each other": ("Concat", Example((*PARTS[:1], *PARTS[:1]), {"axis": 0})),
    "cut rows": ("Split", Example((Sample((3, 34, 7)), CUTS), {"axis": 1}, outputs=3)),
}


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if runs_everything(name)])
@pytest.mark.parametrize("name", CASES)
def test_all_pieces_are_moved_in_one_launch(
    runtime: str, name: str, rng: np.random.Generator
) -> None:
    """Chunks begin and end within rows."""
    identifier, example = CASES[name]
    op, processor = OPERATORS[identifier], open_opencl(runtime)
    operands = example.draw(rng)
    call = example.call(op, operands)
    variant = next(v for v in FAMILY.variants if v.name == "pieces")
    assert variant.applies(call, processor.facts) is None
    choice = Choice(variant, {"SHARES": 4, "CHUNK": 61})
    region = Region.alone(call)
    executable = compile_region(region, processor.facts, runtime, always(choice))
    assert isinstance(executable, OpenCLExecutable)
    assert len(executable.steps) == 1
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    results = run_region(processor, region, executable, values)
    for result, expected in zip(results, expected_outputs(op, call, operands), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_piece_that_nobody_reads_keeps_its_place(rng: np.random.Generator) -> None:
    _, example = CASES["cut rows"]
    call = example.call(OPERATORS["Split"], example.draw(rng))
    first, _, third = call.outputs
    found = pieces.pieces_of(replace(call, outputs=(first, None, third)))
    assert [(p.operand.index, p.run, p.start) for p in found] == [(0, 28, 0), (2, 63, 175)]
