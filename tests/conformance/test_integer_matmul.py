"""Products of bytes by known matrices, on every OpenCL runtime, against their NumPy reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.processors.opencl.byte_dots import byte_dots
from coexec.processors.opencl.choose import Choice, Chooser, always
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.integer_matmul import (
    INTEGER_MATMUL,
    reference,
    result_type,
    stored_columns,
)
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.tuning.check import disagreement
from coexec.processors.opencl.tuning.operands import draw_operands
from tests.running import run_region
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

FLOAT = np.float32
VARIANTS = {variant.name: variant for variant in KERNELS[INTEGER_MATMUL.identifier].variants}


@dataclass(frozen=True)
class Product:
    """Shape of the bytes, columns, zero points of rows (0: none), and what else there is."""

    a: tuple[int, ...]
    columns: int
    row_zeros: int = 1
    column_zeros: bool = False
    scaled: bool = True
    bias: bool = True


PRODUCTS = (
    Product((37, 64), 96),
    Product((2, 3, 35), 50, column_zeros=True),
    Product((13, 66), 200, row_zeros=13, column_zeros=True, scaled=False, bias=False),
    Product((1, 130), 1000),
    Product((4, 9, 7), 16, row_zeros=0, bias=False),
    Product((70,), 33, scaled=False, bias=False),
    Product((5, 700), 64, row_zeros=0, column_zeros=True, scaled=False, bias=False),
    Product((15, 1), 3),
)


def product(case: Product, rng: np.random.Generator) -> tuple[OpCall, list[Array | None]]:
    """The call, and its operands. What fills columns up must not matter: it is no number."""
    depth, columns = case.a[-1], case.columns
    stored = stored_columns(columns)

    def of_columns(values: Array) -> Array:
        fill = np.nan if values.dtype.kind == "f" else 77
        return np.concatenate([values, np.full(stored - columns, fill, values.dtype)])

    operands: list[Array | None] = [None] * 7
    operands[0] = rng.integers(0, 256, case.a).astype(np.uint8)
    operands[3] = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    if case.row_zeros:
        operands[1] = rng.integers(0, 256, (case.row_zeros,)).astype(np.uint8)
    if case.column_zeros:
        operands[4] = of_columns(rng.integers(-128, 128, columns).astype(np.int32))
    if case.scaled:
        operands[2] = np.array(0.031, FLOAT)
        operands[5] = of_columns(rng.uniform(0.001, 0.02, columns).astype(FLOAT))
    if case.bias:
        operands[6] = of_columns(rng.normal(size=columns).astype(FLOAT))
    kinds = tuple(None if each is None else TensorType.of(each) for each in operands)
    a, weights = kinds[0], kinds[3]
    assert a is not None
    assert weights is not None
    known = {i: each for i, each in enumerate(operands) if i > 2 and each is not None}
    types = (result_type(a, weights, case.scaled),)
    attributes = {"kinds": ("MatMulInteger",)}
    return OpCall(INTEGER_MATMUL.op_type, kinds, attributes, types, known, FUSED), operands


def run(
    processor: OpenCLProcessor,
    call: OpCall,
    operands: list[Array | None],
    choose: str | Chooser,
    dots: bool,
) -> Array:
    """The result of a variant, with the device's own dot products if it has them."""
    facts = replace(processor.facts, dots=byte_dots(processor.programs) if dots else "none")
    region = Region.alone(call)
    executable = compile_region(region, facts, processor.name, choose)
    values = {f"x{i}": each for i, each in enumerate(operands) if each is not None}
    (result,) = run_region(processor, region, executable, values)
    return result


def assert_right(call: OpCall, actual: Array, operands: list[Array | None]) -> None:
    """Sums exactly; floats as rounded once or twice."""
    (expected,) = reference(call, operands)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype == np.int32:
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, 1e-6, 1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("runtime", "case"),
    [
        (runtime, case)
        for runtime in RUNTIMES
        for case in (PRODUCTS if runs_everything(runtime) else PRODUCTS[1:4])
    ],
)
def test_every_variant_agrees_with_the_reference(
    runtime: str, case: Product, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call, operands = product(case, rng)
    for variant in VARIANTS:
        for dots in (False, True) if variant == "dots" else (False,):
            assert_right(call, run(processor, call, operands, variant, dots), operands)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_tile_agrees_with_the_reference(runtime: str, rng: np.random.Generator) -> None:
    """Widths of which some do not divide the columns, and more rows of a tile than there are."""
    processor = open_opencl(runtime)
    call, operands = product(Product((9, 20), 70, column_zeros=True), rng)
    tiles: tuple[Mapping[str, int], ...] = (
        {"VECS": 1, "TILE": 14},
        {"VECS": 4, "TILE": 5},
        {"VECS": 3, "TILE": 8},
    )
    for values in tiles if runs_everything(runtime) else tiles[:1]:
        choose = always(Choice(VARIANTS["dots"], values))
        assert_right(call, run(processor, call, operands, choose, dots=True), operands)


def test_sums_beyond_32_bits_wrap_around() -> None:
    """255 * 128 * 70,000 is more than 2^31."""
    processor = open_opencl(RUNTIMES[0])
    call, operands = product(
        Product((1, 70_000), 16, row_zeros=0, scaled=False, bias=False), np.random.default_rng(0)
    )
    operands[0] = np.full((1, 70_000), 255, np.uint8)
    weights = np.full((70_000, 16), -128, np.int8)
    operands[3] = weights
    call = replace(call, constants={3: weights})
    (expected,) = reference(call, operands)
    assert expected[0, 0] == 2**32 - 255 * 128 * 70_000
    for dots in (False, True):
        assert_right(call, run(processor, call, operands, "dots", dots), operands)


def test_a_candidate_of_the_tuner_has_to_give_the_very_sums(rng: np.random.Generator) -> None:
    call, operands = product(Product((4, 12), 20, scaled=False, bias=False), rng)
    drawn = draw_operands(call, rng)
    assert drawn["x0"].max() > 200
    assert set(drawn) == {"x0", "x1"}
    (sums,) = reference(call, operands)
    assert disagreement(call, {"y": sums.copy()}, {"y": sums}) is None
    assert disagreement(call, {"y": sums + 1}, {"y": sums}) is not None
