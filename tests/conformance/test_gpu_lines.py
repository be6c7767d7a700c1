"""Softmax, losses, reductions and normalisation as GPUs compute them: neighbours share a line."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import Example
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.table import KERNELS
from tests.running import assert_agrees, expected_outputs, run_call
from tests.runtimes import RUNTIMES, THOROUGH, open_opencl

Shape = tuple[int, ...]
ABLE = [name for name in THOROUGH if open_opencl(name).facts.fp16]


def call_of(
    identifier: str, operands: list[Array], attributes: dict[str, Any], outputs: int = 1
) -> OpCall:
    return Example(tuple(operands), attributes, outputs).call(OPERATORS[identifier], operands)


def check(
    runtime: str,
    identifier: str,
    operands: list[Array],
    attributes: dict[str, Any],
    variant: str,
    outputs: int = 1,
) -> None:
    """By default a GPU takes this variant, and its results are the reference's."""
    processor = open_opencl(f"{runtime}?unit=gpu")
    call = call_of(identifier, operands, attributes, outputs)
    chosen, _ = KERNELS[identifier].choose(call, processor.facts)
    assert chosen is not None
    assert chosen.name == variant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the reference on lines of infinities
        expected = expected_outputs(OPERATORS[identifier], call, operands)
    assert_agrees(OPERATORS[identifier], call, run_call(processor, call, operands), expected)


def normal(rng: np.random.Generator, shape: Shape, dtype: str = "float32", scale: float = 1) -> Any:
    return (rng.standard_normal(shape) * scale).astype(dtype)


LINES: list[Shape] = [(1, 3), (7, 197), (3, 5, 64), (300, 4), (2, 1000), (5, 1)]
"""Shorter than a vector, odd, many a group, longer than a group, a single element."""


@pytest.mark.parametrize("shape", LINES, ids=str)
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_softmax(runtime: str, name: str, shape: Shape, rng: np.random.Generator) -> None:
    check(runtime, name, [normal(rng, shape, scale=4)], {"axis": -1}, "groups")


@pytest.mark.parametrize("shape", LINES, ids=str)
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_softmax_gradients(runtime: str, name: str, shape: Shape, rng: np.random.Generator) -> None:
    x = normal(rng, shape, scale=4)
    call = call_of(name, [x], {"axis": -1})
    (y,) = expected_outputs(OPERATORS[name], call, [x])
    check(runtime, f"coexec::{name}Grad", [normal(rng, shape), y], {"axis": -1}, "groups")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_softmax_of_lines_with_infinities_and_nan(runtime: str, rng: np.random.Generator) -> None:
    x = normal(rng, (6, 37))
    x[0, 3] = np.nan
    x[1, :30] = -np.inf
    x[2, 36] = np.inf
    x[3] = -np.inf
    x[4] = 1e30
    check(runtime, "Softmax", [x], {"axis": -1}, "groups")


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("runtime", ABLE)
def test_softmax_of_sixteen_bits(runtime: str, name: str, rng: np.random.Generator) -> None:
    check(runtime, name, [normal(rng, (9, 197), "float16", 4)], {"axis": -1}, "groups")


@pytest.mark.parametrize(
    ("shape", "variant"),
    [((5, 11), "groups"), ((33, 1000), "groups"), ((600, 3), "groups"), ((4, 7, 70), "labels")],
    ids=str,
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("runtime", THOROUGH)
def test_losses(
    runtime: str, reduction: str, shape: Shape, variant: str, rng: np.random.Generator
) -> None:
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels.flat[0] = -1
    weights = rng.uniform(0.5, 2, shape[1]).astype("float32")
    attributes = {"reduction": reduction, "ignore_index": -1}
    operands = [normal(rng, shape), labels, weights]
    check(runtime, "SoftmaxCrossEntropyLoss", operands, attributes, variant, outputs=2)


@pytest.mark.parametrize("shape", [(5, 11), (33, 1000), (600, 3)], ids=str)
@pytest.mark.parametrize("runtime", THOROUGH)
def test_gradients_of_losses(runtime: str, shape: Shape, rng: np.random.Generator) -> None:
    scores = normal(rng, shape)
    labels = rng.integers(0, shape[1], shape[0])
    log_prob = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    operands = [normal(rng, ()), log_prob.astype("float32"), labels]
    name = "coexec::SoftmaxCrossEntropyLossGrad"
    check(runtime, name, operands, {"reduction": "mean"}, "groups")


REDUCTIONS: dict[str, tuple[Shape, Shape, str]] = {
    "two inner axes": ((40, 6, 10, 12), (2, 3), "groups"),
    "outer and inner axes": ((5, 33, 20, 9), (1, 3), "groups"),
    "long lines": ((100, 1000), (1,), "groups"),
    "columns in stages": ((3000, 70), (0,), "staged"),
    "to one, by a group": ((999,), (0,), "staged"),
    "to one, in stages": ((50001,), (0,), "staged"),
}


@pytest.mark.parametrize("case", REDUCTIONS)
@pytest.mark.parametrize(
    "name", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceLogSumExp", "ReduceL2"]
)
@pytest.mark.parametrize("runtime", THOROUGH)
def test_reductions(runtime: str, name: str, case: str, rng: np.random.Generator) -> None:
    shape, axes, variant = REDUCTIONS[case]
    operands = [normal(rng, shape), np.array(axes, np.int64)]
    check(runtime, name, operands, {"keepdims": 1}, variant)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_mean_in_two_stages(runtime: str, rng: np.random.Generator) -> None:
    """The second stage divides by all elements, not by the parts that it joins."""
    operands = [normal(rng, (40007,)) + 1, np.array([0], np.int64)]
    check(runtime, "ReduceMean", operands, {"keepdims": 0}, "staged")


@pytest.mark.parametrize("runtime", ABLE)
def test_reductions_of_sixteen_bits(runtime: str, rng: np.random.Generator) -> None:
    operands = [normal(rng, (70, 5, 333), "float16"), np.array([2], np.int64)]
    check(runtime, "ReduceMean", operands, {"keepdims": 1}, "groups")


@pytest.mark.parametrize("size", [257, 40007])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_dynamic_quantisation(runtime: str, size: int, rng: np.random.Generator) -> None:
    """Extremes by neighbours, values by vectors of four."""
    check(runtime, "DynamicQuantizeLinear", [normal(rng, (size,))], {}, "naive")
