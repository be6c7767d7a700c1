"""Linear and cubic Resize row by row: each way along rows, at borders and between shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coexec.core.types import OpCall, Region, TensorType
from coexec.ops.resize_geometry import ResizeGeometry
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.kernels.resize import FAMILY
from coexec.processors.opencl.kernels.resize_lines import passes_of, walk_of
from tests.running import assert_agrees, expected_outputs, run_region
from tests.runtimes import RUNTIMES, open_opencl

OP = OPERATORS["Resize"]
ABLE = [name for name in RUNTIMES if open_opencl(name).facts.fp16]
AS_PYTORCH = {"coordinate_transformation_mode": "pytorch_half_pixel"}
CORNERS = {"coordinate_transformation_mode": "align_corners"}
SYMMETRIC = {"coordinate_transformation_mode": "half_pixel_symmetric"}
ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}


def resize(
    shape: tuple[int, ...], sizes: tuple[int, ...], dtype: str = "float32", **attributes: Any
) -> OpCall:
    values = np.array(sizes, np.int64)
    kinds = (TensorType(shape, np.dtype(dtype)), None, None, TensorType.of(values))
    return OP.typed(OpCall("Resize", kinds, {"mode": "linear"} | attributes, constants={3: values}))


def check(runtime: str, call: OpCall, x: np.ndarray[Any, Any]) -> None:
    """The variant and the general kernel beside the reference."""
    processor = open_opencl(runtime)
    values = {"x0": x, "x3": call.constants[3]}
    operands = [x, None, None, values["x3"]]
    expected = expected_outputs(OP, call, operands)
    for name in ("lines", "naive"):
        region = Region.alone(call)
        executable = compile_region(region, processor.facts, processor.name, name)
        actual = run_region(processor, region, executable, values)
        assert_agrees(OP, call, actual, expected)
        loose = 2e-3 if x.dtype == np.float16 else 3e-6
        np.testing.assert_allclose(actual[0], expected[0], atol=loose)


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "doubled": ((3, 4, 7, 37), (3, 4, 14, 74), {}),
    "doubled, one element fewer": ((2, 9, 21), (2, 18, 41), CORNERS),
    "doubled from the first element on": ((2, 9, 21), (2, 18, 42), ASYMMETRIC),
    "fourfold": ((2, 2, 9, 23), (2, 2, 36, 92), {}),
    "fourfold by cubes": ((2, 9, 23), (2, 36, 92), {"mode": "cubic"}),
    "doubled by cubes of what is inside": (
        (2, 9, 23),
        (2, 18, 46),
        {"mode": "cubic", "exclude_outside": 1},
    ),
    "eightfold": ((2, 3, 5, 6), (2, 3, 40, 48), {}),
    "by a third more": ((2, 3, 6, 30), (2, 3, 8, 40), AS_PYTORCH),
    "symmetric": ((2, 3, 7, 11), (2, 3, 9, 17), SYMMETRIC),
    "smaller": ((2, 3, 17, 40), (2, 3, 8, 13), {}),
    "smaller without aliases": ((2, 3, 17, 40), (2, 3, 8, 13), {"antialias": 1}),
    "smaller by cubes without aliases": (
        (2, 17, 40),
        (2, 8, 23),
        {"antialias": 1, "mode": "cubic"},
    ),
    "channels last": ((2, 5, 6, 19), (2, 10, 12, 19), {}),
    "three channels last": ((2, 5, 6, 3), (2, 10, 12, 3), {}),
    "rows alone": ((2, 5, 21), (2, 9, 21), {}),
    "columns alone": ((2, 5, 21), (2, 5, 42), {}),
    "volumes": ((2, 2, 4, 5, 18), (2, 2, 8, 10, 36), {}),
    "axes apart": ((3, 4, 5, 18), (3, 8, 5, 36), {}),
    "from one element": ((2, 3, 1, 1), (2, 3, 6, 7), {}),
    "from one row": ((2, 3, 1, 20), (2, 3, 6, 40), {"mode": "cubic"}),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_rows_agree_with_the_reference(runtime: str, case: str, rng: np.random.Generator) -> None:
    shape, sizes, attributes = CASES[case]
    call = resize(shape, sizes, **attributes)
    variant, reason = FAMILY.choose(call, open_opencl(runtime).facts)
    assert variant is not None, reason
    assert variant.name == "lines"
    check(runtime, call, rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("runtime", ABLE)
@pytest.mark.parametrize("case", CASES)
def test_rows_of_float16_are_added_up_in_float32(
    runtime: str, case: str, rng: np.random.Generator
) -> None:
    shape, sizes, attributes = CASES[case]
    call = resize(shape, sizes, "float16", **attributes)
    variant, reason = FAMILY.choose(call, open_opencl(runtime).facts)
    assert variant is not None, reason
    assert variant.name == "lines"
    check(runtime, call, rng.standard_normal(shape).astype(np.float16))


def test_each_way_along_rows_has_a_case() -> None:
    found = set()
    for shape, sizes, attributes in CASES.values():
        g = ResizeGeometry.of(resize(shape, sizes, **attributes))
        found |= {walk_of(g, p, 16).number for p in passes_of(g)}
    assert found == {0, 1, 2, 3}


def test_what_is_not_added_up_goes_elsewhere() -> None:
    call = resize((1, 1, 4, 8), (1, 1, 7, 11), mode="nearest")
    variant, _ = FAMILY.choose(call, open_opencl(RUNTIMES[0]).facts)
    assert variant is None or variant.name != "lines"
