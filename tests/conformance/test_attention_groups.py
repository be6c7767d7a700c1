"""Attention of few queries as GPUs compute it: a work-group for a chunk of keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import Example
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, always, variant_named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_call, run_region
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

OP = OPERATORS["Attention"]
FAMILY = KERNELS["Attention"]
ABLE = [name for name in THOROUGH if open_opencl(name).facts.fp16]
Heads = tuple[int, int, int]


def drawn(
    heads: Heads, keys: int, sizes: tuple[int, int], dtype: str = "float32", mask: Any = None
) -> list[Array]:
    """Queries of (heads, key heads, rows) of two samples, keys and values of these sizes."""
    rng = np.random.default_rng(keys)
    many, few, rows = heads
    shapes = (2, many, rows, sizes[0]), (2, few, keys, sizes[0]), (2, few, keys, sizes[1])
    found = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return found if mask is None else [*found, mask]


def call_of(operands: list[Array], attributes: dict[str, Any]) -> OpCall:
    return Example(tuple(operands), attributes, 1).call(OP, operands)


def check(runtime: str, operands: list[Array], attributes: dict[str, Any]) -> None:
    """By default a GPU takes groups, and its results are the reference's."""
    processor = open_opencl(f"{runtime}?unit=gpu")
    call = call_of(operands, attributes)
    chosen, _ = FAMILY.choose(call, processor.facts)
    assert chosen is not None
    assert chosen.name == "groups"
    actual = run_call(processor, call, operands)
    assert_agrees(OP, call, actual, expected_outputs(OP, call, operands))


@pytest.mark.parametrize(
    ("heads", "keys", "sizes"),
    [
        ((4, 4, 1), 1000, (64, 64)),  # decoding, chunks of which the last is short
        ((8, 2, 1), 300, (32, 48)),  # grouped heads; values whose columns do not divide a group
        ((4, 1, 7), 65, (16, 16)),  # 28 rows of a key head, one key in the last chunk
        ((2, 2, 3), 5, (16, 272)),  # fewer keys than items; values wider than a group
    ],
    ids=str,
)
@pytest.mark.parametrize("runtime", THOROUGH)
def test_few_queries(runtime: str, heads: Heads, keys: int, sizes: tuple[int, int]) -> None:
    check(runtime, drawn(heads, keys, sizes), {})


@pytest.mark.parametrize("runtime", THOROUGH)
def test_positions_caps_and_scales(runtime: str) -> None:
    operands = drawn((4, 2, 3), 130, (32, 32))
    check(runtime, operands, {"is_causal": 1, "softcap": 2.5, "scale": 0.3})


@pytest.mark.parametrize("kind", ["booleans", "numbers", "nothing allowed"])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_masks(runtime: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    mask: Array = rng.random((2, 1, 2, 200)) < 0.5
    if kind == "numbers":
        mask = rng.standard_normal((2, 200)).astype(np.float32)
    if kind == "nothing allowed":
        mask[:, :, :, :128] = False  # whole chunks without a key
    check(runtime, drawn((4, 2, 2), 200, (32, 32), mask=mask), {})


@pytest.mark.parametrize("runtime", ABLE)
def test_sixteen_bits(runtime: str) -> None:
    check(runtime, drawn((4, 2, 1), 200, (64, 64), "float16"), {})


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name not in THOROUGH])
def test_other_runtimes(runtime: str) -> None:
    check(runtime, drawn((2, 1, 1), 70, (16, 32)), {})


@pytest.mark.parametrize("tiles", [4, 2, 1])
@pytest.mark.parametrize("local", [64, 128])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_chunks_of_every_size(runtime: str, tiles: int, local: int) -> None:
    processor = open_opencl(f"{runtime}?unit=gpu")
    operands = drawn((4, 2, 1), 600, (32, 32))
    call, variant = call_of(operands, {}), variant_named(FAMILY, "groups")
    assert variant is not None
    chosen = always(Choice(variant, {"TILES": tiles, "LOCAL": local}))
    executable = compile_region(Region.alone(call), processor.facts, processor.name, chosen)
    given = {f"x{i}": value for i, value in enumerate(operands)}
    actual = run_region(processor, Region.alone(call), executable, given)
    assert_agrees(OP, call, actual, expected_outputs(OP, call, operands))


def test_chunks_are_as_long_as_leaves_groups_for_the_device() -> None:
    facts = replace(open_opencl(f"{THOROUGH[0]}?unit=gpu").facts, compute_units=8)
    variant = variant_named(FAMILY, "groups")
    assert variant is not None
    for keys, tiles in ((64, 1), (1024, 2), (8192, 4)):
        call = call_of(drawn((4, 2, 1), keys, (16, 16)), {})
        assert variant.defaults(call, facts) == {"TILES": tiles, "LOCAL": 64}


def test_chunks_shrink_to_the_local_memory() -> None:
    """28 rows of 256 keys have 28 KiB of scores alone."""
    facts = replace(open_opencl(f"{THOROUGH[0]}?unit=gpu").facts, local_bytes=20 << 10)
    variant = variant_named(FAMILY, "groups")
    assert variant is not None
    call = call_of(drawn((4, 1, 7), 5000, (16, 16)), {})
    part, _ = variant.lower(call, facts, {"TILES": 4, "LOCAL": 128}).calls
    assert (part.defines["LOCAL"], part.defines["CHUNK"]) == (64, 64)
    assert variant.applies(call, replace(facts, local_bytes=8 << 10))
