"""Matrix products as a GPU computes them: every form and tile, operands either way, parts of sums.

On a driver for CPUs, which runs the same kernels; devices of many compute units are made up, so
that sums are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example, Sample
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, by_default, variant_named
from coexec.processors.opencl.compile import compile_region, lower_node
from coexec.processors.opencl.executable import KernelStep
from coexec.processors.opencl.family import DeviceFacts, Lowering
from coexec.processors.opencl.kernels.gemm import FAMILY
from tests.conformance.test_fusion_epilogue import ProductDice
from tests.gpu_layout import GPU, gpu_facts
from tests.random_regions import evaluated
from tests.running import assert_agrees, assert_close, expected_outputs, run_region
from tests.runtimes import DRIVERS, open_opencl

UNITS = 16
STAGED, DIRECT = {"STAGED": 1}, {"STAGED": 0}
BIASES: Mapping[str, Callable[[int, int], tuple[int, ...]]] = {
    "row": lambda _m, n: (n,),
    "column": lambda m, _n: (m, 1),
    "whole": lambda m, n: (m, n),
}


def gemm(
    m: int, n: int, k: int, turned: str = "", bias: str = "", kind: str = "float32"
) -> tuple[OpCall, list[Array | None]]:
    """Y = 0.5 A B + 2 C; ``turned`` names the operands that are stored transposed."""
    left, right = "a" in turned, "b" in turned
    attributes = {"transA": int(left), "transB": int(right), "alpha": 0.5, "beta": 2.0}
    third = Sample(BIASES[bias](m, n)) if bias else None
    samples = (Sample((k, m) if left else (m, k)), Sample((n, k) if right else (k, n)), third)
    return drawn("Gemm", Example(samples, attributes), kind)


def matmul(*shapes: tuple[int, ...]) -> tuple[OpCall, list[Array | None]]:
    return drawn("MatMul", Example(tuple(map(Sample, shapes)), {}), "float32")


def drawn(name: str, example: Example, kind: str) -> tuple[OpCall, list[Array | None]]:
    found = example.draw(np.random.default_rng(7))
    operands = [None if each is None else each.astype(kind) for each in found]
    return example.call(OPERATORS[name], operands), operands


def check(
    call: OpCall,
    operands: list[Array | None],
    variant: str,
    values: Mapping[str, int] | None = None,
    runtime: str = GPU,
    units: int = UNITS,
) -> Lowering:
    """Run a variant with ``values`` instead of its defaults; the result is the reference's."""
    processor = open_opencl(runtime)
    facts = replace(processor.facts, compute_units=units)
    chosen = variant_named(FAMILY, variant)
    assert chosen is not None
    assert chosen.applies(call, facts) is None
    chooser = always(Choice(chosen, {**chosen.defaults(call, facts), **(values or {})}))
    region = Region.alone(call)
    given = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    executable = compile_region(region, facts, processor.name, chooser)
    op = OPERATORS[call.identifier]
    actual = run_region(processor, region, executable, given)
    assert_agrees(op, call, actual, expected_outputs(op, call, operands))
    return lower_node(region.nodes[0], facts, chooser)


@pytest.mark.parametrize("values", [STAGED, DIRECT], ids=["staged", "direct"])
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("sizes", [(68, 72, 48), (67, 73, 45)], ids=["vectors", "odd"])
def test_operands_either_way_in_tiles_with_edges(
    sizes: tuple[int, int, int], turned: str, values: Mapping[str, int]
) -> None:
    call, operands = gemm(*sizes, turned, "row")
    check(call, operands, "tiled", values, units=1)


@pytest.mark.parametrize(
    "values",
    [
        {"TM": 64, "TN": 64, "TK": 8},
        {"TM": 16, "TN": 32, "TK": 32},
        {"TM": 4, "TN": 64, "STAGED": 0},
        {"TM": 4, "TN": 32},
    ],
    ids=str,
)
def test_every_tile(values: Mapping[str, int]) -> None:
    check(*gemm(70, 300, 50, bias="whole"), "tiled", values)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("values", [STAGED, DIRECT], ids=["staged", "direct"])
def test_long_sums_are_cut_and_added_up(values: Mapping[str, int], bias: str) -> None:
    call, operands = gemm(36, 40, 1030, "a", bias)
    lowering = check(call, operands, "tiled", values)
    assert [each.entry for each in lowering.calls] == ["tiled", "tiled_sum"]


def test_a_device_that_is_occupied_gets_no_parts() -> None:
    lowering = check(*gemm(36, 40, 1030), "tiled", units=1, values={"GROUPS": 2})
    assert [each.entry for each in lowering.calls] == ["tiled"]


@pytest.mark.parametrize("kind", ["float16", "float64"])
@pytest.mark.parametrize("turned", ["", "b"])
def test_other_float_types(kind: str, turned: str) -> None:
    if kind == "float16" and not open_opencl(GPU).facts.fp16:
        pytest.skip("no float16 on this device")
    check(*gemm(36, 40, 200, turned, "row", kind), "tiled")
    check(*gemm(5, 40, 200, "b", "row", kind), "group_dots")


def test_batches_that_broadcast() -> None:
    check(*matmul((2, 1, 5, 12, 20), (3, 1, 20, 8)), "tiled")
    check(*matmul((3, 2, 9, 7), (2, 7, 5)), "tiled", DIRECT)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("lanes", [16, 32, 64])
def test_few_rows_are_summed_by_groups(rows: int, lanes: int) -> None:
    for depth in (256, 259):
        call, operands = gemm(rows, 33, depth, "b", "row")
        lowering = check(call, operands, "group_dots", {"LANES": lanes})
        assert [each.entry for each in lowering.calls] == ["dots_of_groups"]


@pytest.mark.parametrize("bias", BIASES)
def test_few_columns_are_summed_by_groups(bias: str) -> None:
    check(*gemm(45, 3, 260, "", bias), "group_dots")
    check(*gemm(45, 3, 260, "b", bias), "group_dots")


def test_batches_of_a_matrix_and_a_vector_are_summed_by_groups() -> None:
    check(*matmul((3, 17, 132), (3, 132, 1)), "group_dots")
    check(*matmul((2, 1, 5, 132), (3, 132, 1)), "group_dots")


@pytest.mark.parametrize("runtime", DRIVERS)
def test_all_drivers_run_them(runtime: str) -> None:
    gpu = f"{runtime}?unit=gpu"
    check(*gemm(67, 72, 300, "b", "row"), "tiled", runtime=gpu)
    check(*gemm(67, 72, 300, "a", "row"), "tiled", DIRECT, runtime=gpu)
    check(*gemm(3, 72, 300, "b", "row"), "group_dots", runtime=gpu)


@pytest.mark.parametrize(
    ("sizes", "turned", "variant"),
    [
        ((128, 128, 128), "", "tiled"),
        ((8, 64, 512), "b", "group_dots"),
        ((8, 64, 512), "", "tiled"),
    ],
)
def test_defaults_of_a_gpu(sizes: tuple[int, int, int], turned: str, variant: str) -> None:
    call, _ = gemm(*sizes, turned)
    assert by_default(FAMILY, call, gpu_facts()).variant.name == variant


def test_what_is_staged_depends_on_where_local_memory_is() -> None:
    call, _ = gemm(128, 128, 128)
    facts: DeviceFacts = gpu_facts()
    assert by_default(FAMILY, call, facts).values["STAGED"] == 1
    assert by_default(FAMILY, call, replace(facts, on_chip=False)).values["STAGED"] == 0


@pytest.mark.parametrize(
    ("sizes", "turned", "entries"),
    [
        ((96, 160, 48), 0, ["tiled"]),
        ((45, 23, 800), 1, ["tiled", "tiled_sum"]),
        ((3, 70, 40), 0, ["tiled"]),
        ((3, 70, 400), 1, ["dots_of_groups"]),
        ((70, 2, 400), 0, ["dots_of_groups"]),
    ],
    ids=str,
)
def test_each_form_finishes_its_results(
    sizes: tuple[int, int, int], turned: int, entries: list[str]
) -> None:
    """Operators behind a product are no launches of their own."""
    rows, columns, depth = sizes
    dice = ProductDice("gpu")
    right = (columns, depth) if turned else (depth, columns)
    operands = (dice.drawn(rows, depth), dice.drawn(*right), dice.drawn(columns))
    product = dice.append("Gemm", operands, {"transB": turned, "alpha": 0.5})
    region = dice.with_outputs(dice.residual(product))
    processor = open_opencl(GPU)
    facts = replace(processor.facts, compute_units=2 if entries == ["tiled"] else UNITS)
    executable = compile_region(region, facts, processor.name)
    launched = [step.entry for step in executable.steps if isinstance(step, KernelStep)]
    assert [entry for entry in launched if entry != "unary"] == entries
    (actual,) = run_region(processor, region, executable, dice.values)
    assert_close(actual, evaluated(region, dice.values)[region.outputs[0]], 1e-4, 1e-4)
