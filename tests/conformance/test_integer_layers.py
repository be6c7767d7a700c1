"""Layers on bytes with channels last, on every OpenCL runtime, against their NumPy references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.byte_dots import byte_dots
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.integer_operators import (
    ADD,
    CONCAT,
    CONV,
    DEQUANTISE,
    FROM_LAST,
    INTEGERS,
    MAX_POOL,
    MEAN,
    QUANTISE,
    TO_LAST,
    IntegerLayer,
    Residual,
    Steps,
    first_channels,
    layer_of,
    stored_channels,
    stored_type,
    with_channels_last,
)
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from tests.running import run_region
from tests.runtimes import RUNTIMES, open_opencl, runs_everything

X, OTHER, Y, LAST = Steps(0.02, 119), Steps(0.05, 130), Steps(0.03, 77), Steps(0.06, 60)
REFERENCES = {op.identifier: op.reference for op in INTEGERS}
FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Convolution:
    """Shapes of x and of the weights, attributes, and whether a tensor is added."""

    x: tuple[int, ...]
    weights: tuple[int, ...]
    attributes: tuple[tuple[str, Any], ...] = ()
    residual: bool = False


PADDED = ("pads", (1, 1, 1, 1))
CONVOLUTIONS = (
    Convolution((1, 16, 5, 7), (16, 16, 1, 1)),
    Convolution((2, 20, 9, 11), (40, 20, 3, 3), (PADDED, ("strides", (2, 2)))),
    Convolution((1, 3, 17, 19), (64, 3, 7, 7), (("pads", (3, 3, 3, 3)), ("strides", (2, 2)))),
    Convolution((2, 64, 7, 7), (128, 64, 3, 3), (PADDED,), residual=True),
    Convolution(
        (1, 50, 6, 9), (96, 50, 3, 2), (("pads", (0, 1, 2, 0)), ("dilations", (2, 1))),
        residual=True,
    ),
    Convolution((3, 33, 1, 1), (1000, 33, 1, 1)),
    Convolution((2, 32, 8, 8), (48, 32, 1, 1), (("strides", (2, 2)),)),
    Convolution((2, 24, 9, 10), (24, 1, 3, 3), (("group", 24), PADDED)),
    Convolution(
        (1, 16, 9, 10), (16, 1, 5, 5),
        (("group", 16), ("pads", (2, 1, 2, 3)), ("strides", (2, 2)), ("dilations", (1, 2))),
    ),
    Convolution((1, 16, 9, 10), (32, 4, 3, 3), (("group", 4),)),
)  # fmt: skip


def stored(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Random bytes with channels last; what fills them up is no zero point."""
    return with_channels_last(rng.integers(0, 256, tuple(shape)).astype(np.uint8), 3)


def float_call(op_type: str, *shapes: tuple[int, ...], **attributes: Any) -> OpCall:
    """An operator on floats with its results' types."""
    kinds = tuple(TensorType(shape, FLOAT) for shape in shapes)
    return OPERATORS[op_type].typed(OpCall(op_type, kinds, attributes, version=17))


def on_bytes(op_type: str, layer: IntegerLayer, operands: Sequence[Array], known: int) -> OpCall:
    """The fused operator; operands from ``known`` to the fourth are constants."""
    constants = {i: operands[i] for i in range(known, min(len(operands), 4))}
    kinds = tuple(map(TensorType.of, operands))
    result = (stored_type(layer.core.output(0).shape),)
    return OpCall(op_type, kinds, {"layer": layer}, result, constants, FUSED)


def convolution(case: Convolution, rng: np.random.Generator) -> tuple[OpCall, list[Array]]:
    core = float_call("Conv", case.x, case.weights, **dict(case.attributes))
    channels, result = case.weights[0], core.output(0).shape
    more = (0, stored_channels(channels) - channels)
    weights = rng.integers(-128, 128, case.weights).astype(np.int8)
    bias = rng.integers(-5000, 5000, channels).astype(np.int32)
    scale = rng.uniform(0.2, 1, channels) / np.sqrt(weights[0].size) / 60
    operands = [
        stored(rng, case.x), weights, np.pad(bias, more), np.pad(scale.astype(FLOAT), more)
    ]  # fmt: skip
    added = Residual(OTHER, LAST, 61, 240) if case.residual else None
    if case.residual:
        operands.append(stored(rng, result))
    layer = IntegerLayer(core, (X,), Y, 5, 250, added, ("Conv",))
    return on_bytes(CONV.op_type, layer, operands, known=1), operands


def run(
    processor: OpenCLProcessor, call: OpCall, operands: Sequence[Array], variant: str, dots: bool
) -> Array:
    """The result of a variant, with the device's own dot products if it has them."""
    own = byte_dots(processor.programs) if dots else "none"
    facts = replace(processor.facts, dots=own)
    region = Region.alone(call)
    executable = compile_region(region, facts, processor.name, variant)
    values = {f"x{i}": operand for i, operand in enumerate(operands)}
    (result,) = run_region(processor, region, executable, values)
    return result


def shown(call: OpCall, result: Array) -> Array:
    """What is looked at: whole numbers without what fills channels up."""
    if result.dtype == FLOAT:
        return result
    return first_channels(result, layer_of(call).core.output(0).shape).astype(int)


def assert_within_a_step(call: OpCall, actual: Array, operands: Sequence[Array]) -> None:
    """At most a step away, and the very same nearly everywhere: sums of floats may tie."""
    (expected,) = REFERENCES[call.identifier](call, operands)
    difference = np.abs(shown(call, actual) - shown(call, expected))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03
    assert shown(call, expected).std() > 5


@pytest.mark.parametrize(
    ("runtime", "case"),
    [
        (runtime, case)
        for runtime in RUNTIMES
        # Of those that build slowly: one with a residual, one of channels of their own.
        for case in (CONVOLUTIONS if runs_everything(runtime) else CONVOLUTIONS[3::4])
    ],
)
def test_convolutions_of_bytes(runtime: str, case: Convolution, rng: np.random.Generator) -> None:
    call, operands = convolution(case, rng)
    processor = open_opencl(runtime)
    variants = [
        variant.name
        for variant in KERNELS[call.identifier].variants
        if variant.applies(call, processor.facts) is None
    ]
    assert variants[-1] == "naive"
    assert len(variants) == 1 + (dict(case.attributes).get("group") != 4)
    for variant in variants:
        for dots in (False, True) if variant == "dots" else (False,):
            assert_within_a_step(call, run(processor, call, operands, variant, dots), operands)


def between(rng: np.random.Generator) -> list[tuple[OpCall, list[Array]]]:
    """What stands between convolutions, with channels that are no whole vectors."""
    shape, odd = (2, 20, 7, 9), (2, 13, 7, 9)
    pooling = {"kernel_shape": (3, 2), "strides": (2, 2), "pads": (1, 1, 0, 1), "ceil_mode": 1}
    cores = (
        (ADD, float_call("Add", shape, shape), (X, OTHER)),
        (CONCAT, float_call("Concat", shape, odd, shape, axis=1), (X, OTHER, Y)),
        (MAX_POOL, float_call("MaxPool", shape, **pooling), (X,)),
        (MAX_POOL, float_call("MaxPool", (1, 3, 9, 9), kernel_shape=(2, 2)), (X,)),
        (MEAN, float_call("GlobalAveragePool", shape), (Steps(0.02, 140),)),
    )
    found = []
    for operator, core, steps in cores:
        result = Steps(0.004, 77) if operator is MEAN else Y
        layer = IntegerLayer(core, steps, result, 3, 251)
        operands = [stored(rng, kind.shape) for kind in core.inputs if kind is not None]
        found.append((on_bytes(operator.op_type, layer, operands, known=4), operands))
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_stands_between_convolutions(runtime: str, rng: np.random.Generator) -> None:
    for call, operands in between(rng):
        actual = run(open_opencl(runtime), call, operands, "naive", dots=False)
        assert_within_a_step(call, actual, operands)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 37, 4, 4), (3, 10)])
def test_conversions_from_and_to_floats(
    runtime: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    kind = TensorType(shape, FLOAT)
    core = OpCall("QuantizeLinear", (kind,), outputs=(TensorType(shape, np.dtype(np.uint8)),))
    layer = IntegerLayer(core, (), X)
    x = rng.uniform(-3, 3, shape).astype(FLOAT)
    call = on_bytes(QUANTISE.op_type, layer, [x], known=4)
    quantised = run(processor, call, [x], "naive", dots=False)
    assert_within_a_step(call, quantised, [x])
    if len(shape) == 4:
        words = run(processor, call, [x], "words", dots=False)
        np.testing.assert_array_equal(shown(call, words), shown(call, quantised))
    back = IntegerLayer(replace(core, outputs=(kind,)), (X,), X)
    call = OpCall(DEQUANTISE.op_type, call.outputs, {"layer": back}, (kind,), domain=FUSED)
    (expected,) = REFERENCES[call.identifier](call, [quantised])
    actual = run(processor, call, [quantised], "naive", dots=False)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 37, 5, 4), (1, 32, 4, 4), (3, 10)])
def test_bytes_of_the_graph_have_their_channels_last_and_back(
    runtime: str, dtype: type[Any], shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Where there are blocks of 16 channels and positions as well as one by one."""
    processor, kind = open_opencl(runtime), TensorType(shape, np.dtype(dtype))
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    core = OpCall("QuantizeLinear", (TensorType(shape, FLOAT),), outputs=(kind,))
    layer = IntegerLayer(core, (X,), X)
    there = on_bytes(TO_LAST.op_type, layer, [x], known=4)
    back = OpCall(FROM_LAST.op_type, there.outputs, {"layer": layer}, (kind,), domain=FUSED)
    (expected,) = REFERENCES[there.identifier](there, [x])
    whole = TensorType.of(expected).shape[-1] % 16 == 0 and np.prod(shape[2:]) >= 16
    assert (KERNELS[there.identifier].variants[0].applies(there, processor.facts) is None) == whole
    for variant in ("blocks", "naive") if whole else ("naive",):
        stored_bytes = run(processor, there, [x], variant, dots=False)
        np.testing.assert_array_equal(stored_bytes, expected)
        np.testing.assert_array_equal(run(processor, back, [expected], variant, dots=False), x)
    np.testing.assert_array_equal(REFERENCES[back.identifier](back, [expected])[0], x)
