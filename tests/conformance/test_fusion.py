"""Fused regions on every OpenCL runtime: the results of the nodes that they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, Region
from coexec.processors.opencl import compile as compiling
from coexec.processors.opencl.executable import OpenCLExecutable
from coexec.processors.opencl.fusion.chain import CHAIN
from coexec.processors.opencl.fusion.elementwise import fuse_elementwise
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.random_regions import BOOL, RegionDice, evaluated
from tests.running import assert_close, run_region
from tests.runtimes import RUNTIMES, open_opencl

SEEDS = range(12)
MOMENTUM = "ai.onnx.preview.training::Momentum"


def run(
    processor: OpenCLProcessor, region: Region, values: dict[str, Array], choose: str | None
) -> list[Array]:
    executable = compiling.compile_region(region, processor.facts, processor.name, choose)
    return run_region(processor, region, executable, values)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_exact_operators_give_the_same_bits_fused(runtime: str, seed: int) -> None:
    processor = open_opencl(runtime)
    dice = RegionDice(f"exact {seed}", exact=True)
    region = dice.region(nodes=dice.randint(2, 14), outputs=dice.randint(1, 3))
    fused = run(processor, region, dice.values, None)
    expected = evaluated(region, dice.values)
    for name, one, other in zip(
        region.outputs, fused, run(processor, region, dice.values, "naive"), strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=name)
        np.testing.assert_array_equal(one, expected[name], err_msg=name)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("seed", range(4))
def test_smooth_operators_agree_with_the_reference_fused(
    runtime: str, dtype: str, seed: int
) -> None:
    processor = open_opencl(runtime)
    if dtype == "float16" and not processor.facts.fp16:
        return  # such calls are refused: test_kernels sees to that
    dice = RegionDice(f"smooth {seed}", exact=False, dtype=dtype)
    region = dice.region(nodes=dice.randint(3, 10), outputs=2)
    expected = evaluated(region, dice.values)
    relative, absolute = (3e-2, 1e-2) if dtype == "float16" else (1e-4, 1e-4)
    for name, actual in zip(region.outputs, run(processor, region, dice.values, None), strict=True):
        assert_close(actual, expected[name], relative, absolute)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("seed", range(4))
def test_a_state_is_replaced_after_its_readers(runtime: str, seed: int) -> None:
    """The state's input and output share a buffer, as in a session."""
    processor = open_opencl(runtime)
    dice = RegionDice(f"state {seed}", exact=True)
    region = dice.region(nodes=dice.randint(2, 8), outputs=2, state=True)
    expected = evaluated(region, dice.values)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    results = run_shared(processor, region, executable, dice.values)
    for name in region.outputs:
        np.testing.assert_array_equal(results[name], expected[name], err_msg=name)


def run_shared(
    processor: OpenCLProcessor,
    region: Region,
    executable: OpenCLExecutable,
    values: dict[str, Array],
) -> dict[str, Array]:
    """Run with states in one buffer each."""
    buffers = {name: processor.alloc(region.types[name].nbytes) for name in region.inputs}
    for name in region.inputs:
        processor.wait(processor.copy(buffers[name], np.ascontiguousarray(values[name]), ()))
    for name in region.outputs:
        old = region.aliases.get(name)
        nbytes = region.types[name].nbytes
        buffers[name] = buffers[old] if old else processor.alloc(nbytes)
    arguments = [buffers[name] for name in (*region.inputs, *region.outputs)]
    if executable.scratch_bytes:
        arguments.append(processor.alloc(executable.scratch_bytes))
    processor.wait(processor.submit(executable, arguments, ()))
    found = {}
    for name in region.outputs:
        kind = region.types[name]
        found[name] = np.empty(kind.shape, kind.dtype)
        processor.wait(processor.copy(found[name], buffers[name], ()))
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fused_node_accounts_for_what_it_reads_and_writes(runtime: str) -> None:
    processor = open_opencl(runtime)
    dice = RegionDice("labels", exact=True)
    dice.shape = (3, 40)
    x, y = (dice.operand(dice.shape) for _ in range(2))
    total = dice.append("Add", (x, y))
    mask = dice.append("Greater", (total, dice.constant(0.25)))
    dice.append("Where", (mask, total, dice.operand((40,))))
    region = dice.region(nodes=0, outputs=0)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    (step,) = executable.steps
    assert step.label.name == "Add_0+Greater_1+Where_2"
    assert step.label.source == "Where_2"
    assert step.label.operator == "Add+Greater+Where.chain"
    assert step.label.flop == 3 * 120
    assert step.label.bytes == 4 * (3 * 120 + 40)
    assert executable.scratch_bytes == 0


def test_nothing_is_fused_where_a_variant_is_forced() -> None:
    processor = open_opencl(RUNTIMES[0])
    dice = RegionDice("forced", exact=True)
    dice.append("Neg", (dice.append("Relu", (dice.operand((5,)),)),))
    region = dice.region(nodes=0, outputs=0)
    forced = compiling.compile_region(region, processor.facts, processor.name, "naive")
    assert len(forced.steps) == 2
    assert len(compiling.compile_region(region, processor.facts, processor.name).steps) == 1


def test_phases_do_not_share_a_kernel() -> None:
    """Events tell of one phase each: a mask of the backward pass is not made in the forward one."""
    processor = open_opencl(RUNTIMES[0])
    dice = RegionDice("phases", exact=True)
    dice.append("Neg", (dice.append("Relu", (dice.operand((5,)),)),))
    region = dice.region(nodes=0, outputs=0)
    phased = tuple(
        replace(node, provenance={"phase": phase})
        for node, phase in zip(region.nodes, ("forward", "backward"), strict=True)
    )
    fused = fuse_elementwise(replace(region, nodes=phased), processor.facts)
    assert [node.call.identifier for node in fused.nodes] == ["Relu", "Neg"]


def test_a_group_does_not_wait_for_itself() -> None:
    """Relu feeds a sum directly and through a Softmax: the two cannot be one kernel."""
    processor = open_opencl(RUNTIMES[0])
    dice = RegionDice("cycle", exact=True)
    dice.shape = (4, 5)
    relu = dice.append("Relu", (dice.operand((4, 5)),))
    softmax = dice.append("Softmax", (relu,))
    dice.append("Neg", (dice.append("Add", (relu, softmax)),))
    region = dice.region(nodes=0, outputs=0)
    fused = fuse_elementwise(region, processor.facts)
    assert [node.call.identifier for node in fused.nodes] == [
        "Relu",
        "Softmax",
        CHAIN.identifier,
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_that_are_views_are_copied_by_one_kernel(runtime: str) -> None:
    """All but those of many bytes and those that are no whole words."""
    processor = open_opencl(runtime)
    dice = RegionDice("views", exact=True)
    shapes = ((5,), (33, 47), (1,), (1 << 15,))
    operands = [dice.operand(shape) for shape in shapes] + [dice.operand((7,), BOOL)]
    views = tuple(dice.append("Identity", (name,)) for name in operands)
    region = replace(dice.region(nodes=0, outputs=0), outputs=views)
    executable = compiling.compile_region(region, processor.facts, processor.name)
    assert len(executable.steps) == 3
    found = run_region(processor, region, executable, dice.values)
    for node, actual in zip(region.nodes, found, strict=True):
        np.testing.assert_array_equal(actual, dice.values[node.inputs[0]])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_optimizer_steps_share_a_kernel(runtime: str) -> None:
    """Those of equal attributes: results are those of the single steps, to the bit."""
    processor = open_opencl(runtime)
    dice = RegionDice("steps", exact=True)
    rate, count = dice.new(np.array(0.25, np.float32)), dice.new(np.array(3))
    outputs: list[str] = []
    aliases: dict[str, str] = {}
    for number, shape in enumerate(((70,), (3,), (5, 300), (2,))):
        operands = [dice.new(dice.numpy.standard_normal(shape, np.float32)) for _ in range(3)]
        attributes = {"alpha": 0.9, "beta": 1.0, "mode": "standard"}
        decay = {"norm_coefficient": 0.5 if number == 3 else 0.0}
        names = dice.node(MOMENTUM, (rate, count, *operands), attributes | decay, outputs=2)
        outputs += names
        aliases |= dict(zip(names, (operands[0], operands[2]), strict=True))
    region = replace(dice.region(0, 0), outputs=tuple(outputs), aliases=aliases)
    batched = compiling.compile_region(region, processor.facts, processor.name)
    single = compiling.compile_region(region, processor.facts, processor.name, "naive")
    assert (len(batched.steps), len(single.steps)) == (2, 4)
    expected = run_shared(processor, region, single, dice.values)
    for name, actual in run_shared(processor, region, batched, dice.values).items():
        np.testing.assert_array_equal(actual, expected[name], err_msg=name)
