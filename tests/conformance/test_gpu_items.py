"""Random masks, codes of activations and the first of many as GPUs compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import Example
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_call
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

Attributes = dict[str, Any]
CODES = "coexec::CompressBlocks"


def results(
    runtime: str,
    identifier: str,
    operands: list[Array],
    attributes: Attributes,
    variant: str,
    outputs: int = 1,
) -> tuple[OpCall, list[Array]]:
    """What a GPU gives by default, which is this variant."""
    processor = open_opencl(f"{runtime}?unit=gpu")
    call = Example(tuple(operands), attributes, outputs).call(OPERATORS[identifier], operands)
    chosen, _ = KERNELS[identifier].choose(call, processor.facts)
    assert chosen is not None
    assert chosen.name == variant
    return call, run_call(processor, call, operands)


@pytest.mark.parametrize("size", [1, 17, 64, 1001])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_masks_are_the_reference_s_bit_for_bit(runtime: str, size: int) -> None:
    name, operands = "coexec::BernoulliMask", [np.array(7, np.int64)]
    attributes = {"shape": (size,), "ratio": 0.4, "seed": 3}
    call, (found,) = results(runtime, name, operands, attributes, "shared")
    assert np.array_equal(found, expected_outputs(OPERATORS[name], call, operands)[0])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_dropout_leaves_nothing_of_what_it_drops(runtime: str) -> None:
    """Not even of infinity, whose product with zero is no number."""
    operands = [np.full(203, np.inf, np.float32), np.array(0.5, np.float32), np.array(True)]
    call, (y, mask) = results(runtime, "Dropout", operands, {"seed": 1}, "shared", 2)
    expected = expected_outputs(OPERATORS["Dropout"], call, operands)
    assert np.array_equal(mask, expected[1])
    assert np.array_equal(y, np.where(mask, np.inf, 0))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [1, 63, 64, 130, 4097])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_codes_are_those_of_a_cpu(
    runtime: str, size: int, bits: int, rng: np.random.Generator
) -> None:
    """Blocks that do not fill a group, a last one that is short, one of equal values."""
    x = rng.standard_normal(size).astype(np.float32)
    x[:64] = x[0] if size > 64 else x[:64]
    call, (words, ends) = results(runtime, CODES, [x], {"bits": bits}, "words", 2)
    expected = run_call(open_opencl(runtime), call, [x])
    assert np.array_equal(ends, expected[1])
    assert np.array_equal(words, expected[0])
    attributes = {"bits": bits, "shape": (size,)}
    name = "coexec::DecompressBlocks"
    call, back = results(runtime, name, [words, ends], attributes, "words")
    assert_agrees(
        OPERATORS[name], call, back, expected_outputs(OPERATORS[name], call, [words, ends])
    )
    assert np.abs(back[0] - x).max() <= np.ptp(x) / (1 << bits)


@pytest.mark.parametrize(("n", "k"), [(20, 3), (5000, 32), (33000, 1)])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_the_first_of_many(runtime: str, n: int, k: int, rng: np.random.Generator) -> None:
    """Few values, so that many are equal: the lowest indices stand first, over several passes."""
    x = rng.integers(0, 9, (2, n)).astype(np.float32)
    operands: list[Array] = [x, np.array([k], np.int64)]
    call, found = results(runtime, "TopK", operands, {}, "passes", 2)
    for actual, wanted in zip(
        found, expected_outputs(OPERATORS["TopK"], call, operands), strict=True
    ):
        assert np.array_equal(actual, wanted)


@pytest.mark.parametrize("shape", [(3, 40, 70), (2, 700, 33)], ids=str)
@pytest.mark.parametrize("runtime", THOROUGH)
def test_sums_along_an_axis_of_neighbouring_lanes(
    runtime: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.integers(-99, 99, shape).astype(np.float32)
    operands: list[Array] = [x, np.array(1, np.int64)]
    variant = "blocked" if shape[1] > 512 else "lines"
    call, found = results(runtime, "CumSum", operands, {}, variant)
    assert_agrees(
        OPERATORS["CumSum"], call, found, expected_outputs(OPERATORS["CumSum"], call, operands)
    )
