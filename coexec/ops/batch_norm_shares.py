"""Batch normalisation in steps, for batches of which each processor has a share of the samples.

Forward: statistics of a share, those of the batch from those of all shares; the result is then an
inference ``BatchNormalization``. Backward: sums over a share, then the gradient from those of all
shares. Between the steps processors exchange a few values per channel. Each step reads large
tensors once and writes none that a later one could do without. The sums are also those of the
gradient by stored statistics.

Joint statistics after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979); the gradient is that of Ioffe and Szegedy, "Batch Normalization"
(2015), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work, WorkRule, streaming_work
from coexec.ops.precision import widened

MADE_LATE = "made after differentiation"
JOIN_FIRST, FLOW_FIRST = 2, 5
"""Operands in front of those that there are two of for each share."""


def statistics_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What sums over elements of a type are kept in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def shares_of(call: OpCall) -> int:
    """Shares of the batch that a JoinStatistics or a BatchNormalizationFlow has values of.

    Raises:
        ValueError: operands do not come in pairs.
    """
    first = JOIN_FIRST if call.op_type == "JoinStatistics" else FLOW_FIRST
    shares, rest = divmod(len(call.inputs) - first, 2)
    if shares < 1 or rest:
        raise ValueError(f"{call.identifier}: two operands for each share are needed")
    return shares


def counts_of(call: OpCall) -> tuple[int, ...]:
    """Samples of each share of a JoinStatistics.

    Raises:
        ValueError: there is not one number for each, or none is above 0.
    """
    counts = tuple(int(n) for n in call.attributes["counts"])
    if len(counts) != shares_of(call) or min(counts) < 0 or not sum(counts):
        raise ValueError(f"{call.identifier}: counts {counts} for {shares_of(call)} shares")
    return counts


def count_of(call: OpCall) -> int:
    """Elements per channel of the whole batch, of a BatchNormalizationFlow."""
    return int(call.attributes["count"])


def _vector(call: OpCall, dtype: np.dtype[Any]) -> TensorType:
    x = call.input(0)
    if x.rank < 2:
        raise ValueError(f"{call.identifier}: {x} has no channel axis")
    return TensorType((x.shape[1],), dtype)


def _check_vectors(call: OpCall, positions: Sequence[int], shape: tuple[int, ...]) -> None:
    for i in positions:
        if call.input(i).shape != shape:
            raise ValueError(f"{call.identifier}: {call.input(i)} is not one value per channel")


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _column(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def infer_statistics(call: OpCall) -> Sequence[TensorType]:
    vector = _vector(call, statistics_type(call.input(0).dtype))
    return vector, vector


@widened
def statistics(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Mean and (biased) variance per channel."""
    (x,) = operands
    mean = x.mean(axis=_axes(x))
    centred = x - _column(mean, x)
    return mean, (centred * centred).mean(axis=_axes(x))


def statistics_body(call: OpCall) -> ir.Function | None:
    """The same in reductions and elementwise operators."""
    kind = call.input(0)
    if kind.dtype != statistics_type(kind.dtype):
        return None
    b = FunctionBuilder(call)
    axes = b.shape((0, *range(2, kind.rank)))
    mean = b.op("ReduceMean", [b.inputs[0], axes], {"keepdims": 1})
    centred = b.op("Sub", [b.inputs[0], mean])
    squares = b.op("Mul", [centred, centred])
    flat = b.op("Reshape", [mean, b.shape((-1,))])
    return b.function([flat, b.op("ReduceMean", [squares, axes], {"keepdims": 0})])


def infer_join(call: OpCall) -> Sequence[TensorType]:
    counts_of(call)
    first = call.input(JOIN_FIRST)
    _check_vectors(call, range(JOIN_FIRST, len(call.inputs)), first.shape)
    old = [call.input(i) if call.has_input(i) else first for i in range(JOIN_FIRST)]
    if call.output_count > 2 and not (call.has_input(0) and call.has_input(1)):
        raise ValueError(f"{call.identifier}: new running statistics need the old ones")
    return first, first, *old


def join(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """M = sum w m, V = sum w (v + (m - M)^2), w being parts of the batch; new running statistics.

    Operands: the old running mean and variance (or none), then mean and variance of each share.
    """
    counts = counts_of(call)
    parts = [count / sum(counts) for count in counts]
    means, variances = operands[JOIN_FIRST::2], operands[JOIN_FIRST + 1 :: 2]
    mean = sum(m * w for m, w in zip(means, parts, strict=True))
    terms = zip(means, variances, parts, strict=True)
    variance = sum((v + (m - mean) * (m - mean)) * w for m, v, w in terms)
    results = [mean.astype(means[0].dtype), variance.astype(means[0].dtype)]
    keep = float(call.attribute("momentum", MOMENTUM))
    for old, new in zip(operands[:JOIN_FIRST], (mean, variance), strict=True):
        if old is not None and call.output_count > 2:
            results.append((old * keep + new * (1 - keep)).astype(old.dtype))
    return results


def join_body(call: OpCall) -> ir.Function | None:
    """The same in elementwise operators."""
    if len({kind.dtype for kind in call.inputs if kind is not None}) > 1:
        return None
    b, dtype, counts = FunctionBuilder(call), call.input(JOIN_FIRST).dtype, counts_of(call)
    parts = [b.constant(count / sum(counts), dtype) for count in counts]
    means, variances = b.inputs[JOIN_FIRST::2], b.inputs[JOIN_FIRST + 1 :: 2]
    mean = b.op("Sum", [b.op("Mul", pair) for pair in zip(means, parts, strict=True)])
    spreads = []
    for m, v, part in zip(means, variances, parts, strict=True):
        apart = b.op("Sub", [m, mean])
        spreads.append(b.op("Mul", [b.op("Add", [v, b.op("Mul", [apart, apart])]), part]))
    results = [mean, b.op("Sum", spreads)]
    keep = float(call.attribute("momentum", MOMENTUM))
    for old, new in zip(b.inputs[: max(call.output_count - 2, 0)], tuple(results), strict=False):
        kept = b.op("Mul", [old, b.constant(keep, dtype)])
        results.append(b.op("Add", [kept, b.op("Mul", [new, b.constant(1 - keep, dtype)])]))
    return b.function(results[: call.output_count])


def infer_sums(call: OpCall) -> Sequence[TensorType]:
    vector = _vector(call, statistics_type(call.input(0).dtype))
    _check_vectors(call, (1,), vector.shape)
    if call.input(2).shape != call.input(0).shape:
        raise ValueError(f"{call.identifier}: dY {call.input(2)} is not like X {call.input(0)}")
    return vector, vector


@widened
def sums(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Sums of dy (x - mean) and of dy per channel, of a share; the mean is that of the batch."""
    x, mean, dy = operands
    return (dy * (x - _column(mean, x))).sum(axis=_axes(x)), dy.sum(axis=_axes(x))


def sums_body(call: OpCall) -> ir.Function | None:
    """The same in reductions and elementwise operators."""
    kind = call.input(0)
    if len({each.dtype for each in call.inputs if each}) > 1 or kind.dtype.itemsize < 4:
        return None
    b = FunctionBuilder(call)
    x, mean, dy = b.inputs
    axes = b.shape((0, *range(2, kind.rank)))
    column = b.op("Reshape", [mean, b.shape((-1, *(1,) * (kind.rank - 2)))])
    along = b.op("Mul", [dy, b.op("Sub", [x, column])])
    return b.function([b.op("ReduceSum", [v, axes], {"keepdims": 0}) for v in (along, dy)])


def infer_flow(call: OpCall) -> Sequence[TensorType]:
    x, scale = call.input(0), call.input(1)
    vectors = (1, *range(3, FLOW_FIRST + 2 * shares_of(call)))
    _check_vectors(call, vectors, _vector(call, x.dtype).shape)
    if call.input(2).shape != x.shape or count_of(call) < 1:
        raise ValueError(f"{call.identifier}: dY {call.input(2)} is not like X {x}, or count < 1")
    return x, scale, scale


@widened
def flow(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """dX of a share, dScale and dB of the batch, by mean and variance of the batch.

    Operands: x, scale, dy, mean, variance, then of each share the results of its
    BatchNormalizationSums. With S and A the sums of those, and n elements per channel (``count``):
    dx = scale / sqrt(v + e) * (dy - S / n - (x - m) A / (n (v + e))).
    """
    x, scale, dy, mean, variance = operands[:FLOW_FIRST]
    along, plain = sum(operands[FLOW_FIRST::2]), sum(operands[FLOW_FIRST + 1 :: 2])
    inverse = 1 / np.sqrt(variance + call.attribute("epsilon", EPSILON))
    slope = along * inverse * inverse / count_of(call)
    mixed = dy - _column(plain / count_of(call), x) - (x - _column(mean, x)) * _column(slope, x)
    dx = mixed * _column(scale * inverse, x)
    dscale = (along * inverse).astype(scale.dtype)
    return dx.astype(x.dtype), dscale, plain.astype(scale.dtype)


def flow_body(call: OpCall) -> ir.Function | None:
    """The same in elementwise operators."""
    kind = call.input(0)
    if len({each.dtype for each in call.inputs if each}) > 1:
        return None
    b = FunctionBuilder(call)
    x, scale, dy, mean, variance = b.inputs[:FLOW_FIRST]
    shape = b.shape((-1, *(1,) * (kind.rank - 2)))
    share = b.constant(1 / count_of(call), kind.dtype)
    along, plain = (b.op("Sum", b.inputs[FLOW_FIRST + i :: 2]) for i in (0, 1))
    epsilon = b.constant(call.attribute("epsilon", EPSILON), kind.dtype)
    inverse = b.op("Reciprocal", [b.op("Sqrt", [b.op("Add", [variance, epsilon])])])
    dscale = b.op("Mul", [along, inverse])
    slope = b.op("Mul", [b.op("Mul", [dscale, inverse]), share])
    vectors = (mean, b.op("Mul", [plain, share]), slope, b.op("Mul", [scale, inverse]))
    m, level, steep, factor = (b.op("Reshape", [vector, shape]) for vector in vectors)
    tilt = b.op("Mul", [b.op("Sub", [x, m]), steep])
    mixed = b.op("Sub", [b.op("Sub", [dy, level]), tilt])
    return b.function([b.op("Mul", [mixed, factor]), dscale, plain][: call.output_count])


def _reading_work(flop: int) -> WorkRule:
    """Work of a sum that does so much with each element of X."""

    def work(call: OpCall) -> Work:
        return Work(flop * call.input(0).size, streaming_work()(call).bytes)

    return work


def _vectors(channels: int, number: int) -> tuple[Sample, ...]:
    """``number`` pairs, the second of each above 0."""
    pair = (Sample((channels,)), Sample((channels,), low=0.5, high=1.5))
    return pair * number


def _join_example(channels: int, counts: tuple[int, ...], running: bool) -> Example:
    old = _vectors(channels, 1) if running else (None, None)
    attributes = {"counts": counts, "momentum": 0.7}
    operands = (*old, *_vectors(channels, len(counts)))
    return Example(operands, attributes, 4 if running else 2, gradient=False)


def _flow_example(*shape: int, shares: int, outputs: int) -> Example:
    scale, x = Sample((shape[1],), low=0.5, high=1.5), Sample(shape)
    operands = (x, scale, x, *_vectors(shape[1], 1 + shares))
    attributes = {"count": 2 * shape[0] * int(np.prod(shape[2:])), "epsilon": 1e-3}
    return Example(operands, attributes, outputs, gradient=False)


SHAPES = ((3, 5, 3, 3), (5, 3, 7, 6), (4, 3))

OPS = (
    OpDef(
        "BatchStatistics",
        infer_statistics,
        statistics,
        domain=COEXEC,
        not_differentiable=MADE_LATE,
        work=_reading_work(4),
        body=statistics_body,
        examples=tuple(Example((Sample(shape),), {}, 2, gradient=False) for shape in SHAPES),
    ),
    OpDef(
        "JoinStatistics",
        infer_join,
        join,
        domain=COEXEC,
        not_differentiable=MADE_LATE,
        work=streaming_work(10),
        body=join_body,
        examples=(_join_example(7, (3, 5), True), _join_example(5, (1, 2, 4), False)),
        in_place=((2, 0), (3, 1)),
    ),
    OpDef(
        "BatchNormalizationSums",
        infer_sums,
        sums,
        domain=COEXEC,
        not_differentiable="second derivatives of batch normalisation are not provided",
        work=_reading_work(4),
        body=sums_body,
        examples=tuple(
            Example((Sample(shape), Sample(shape[1:2]), Sample(shape)), {}, 2, gradient=False)
            for shape in SHAPES
        ),
    ),
    OpDef(
        "BatchNormalizationFlow",
        infer_flow,
        flow,
        domain=COEXEC,
        not_differentiable=MADE_LATE,
        work=streaming_work(5),
        body=flow_body,
        # Elements of X and dY are read for the last time when that of dX is written.
        in_place=((0, 2), (0, 0)),
        examples=(
            _flow_example(3, 5, 3, 3, shares=2, outputs=1),
            _flow_example(5, 3, 7, 6, shares=3, outputs=3),
            _flow_example(4, 3, shares=1, outputs=3),
        ),
    ),
)
