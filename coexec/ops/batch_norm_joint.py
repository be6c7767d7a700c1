"""Batch normalisation of shares of a batch in one operator, which meets those of other processors.

The steps of :mod:`coexec.ops.batch_norm_shares` in one: each processor makes sums of its samples
channel by channel, tells the others in a place that all of them have in common, and finishes the
channels of which it knows all sums. So a channel is still in a cache when it is read again, and
nothing has to be started in between. All members work at the same time; one of them alone, as in
the reference, has the whole batch.

The place is a tensor of 32-bit words that is 0 when a pass begins. From word ``offset`` on, each
member has a line with how many channels it has summed up, then two numbers for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.batch_norm_shares import FLOW_FIRST, flow, statistics, statistics_type, sums
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, streaming_work
from coexec.ops.precision import widened

MADE_LATE = "made where processors can wait for each other"
LINE = 16
"""Words of a line of a cache."""
PLACE, OLD = 3, 4
"""Operands of the normalisation: the place, and behind it the old running statistics."""
GRADIENT_PLACE = 5
PLACES = {"JointNormalization": PLACE, "JointNormalizationGrad": GRADIENT_PLACE}


def words_of(members: int, channels: int) -> int:
    """Words that one normalisation, or one gradient, takes of a place."""
    return members * LINE + -(-2 * members * channels // LINE) * LINE


def parts_of(call: OpCall) -> tuple[float, ...]:
    """The part of the batch that each member has of it.

    Raises:
        ValueError: there is no member, or one has no samples.
    """
    counts = tuple(int(n) for n in call.attributes["counts"])
    if not counts or min(counts) < 1:
        raise ValueError(f"{call.identifier}: counts {counts} of the members' samples")
    return tuple(count / sum(counts) for count in counts)


def member_of(call: OpCall) -> tuple[int, int]:
    """Which member a call is, and how many there are."""
    return int(call.attribute("member", 0)), len(parts_of(call))


def _check(call: OpCall, vectors: Sequence[int]) -> TensorType:
    """The operand, if it has channels, vectors have one value for each, and the place has room."""
    x, place = call.input(0), call.input(PLACES[call.op_type])
    if x.rank < 2:
        raise ValueError(f"{call.identifier}: {x} has no channel axis")
    for i in vectors:
        if call.input(i).shape != x.shape[1:2]:
            raise ValueError(f"{call.identifier}: {call.input(i)} is not one value per channel")
    (number, members), offset = member_of(call), int(call.attribute("offset", 0))
    if not 0 <= number < members or offset % LINE:
        raise ValueError(f"{call.identifier}: member {number} of {members} at word {offset}")
    if place.dtype != np.int32 or offset + words_of(members, x.shape[1]) > place.size:
        raise ValueError(f"{call.identifier}: no room for {members} members in {place}")
    return x


def _alone(call: OpCall) -> None:
    if member_of(call)[1] > 1:
        raise ValueError(f"{call.identifier} takes all of its processors at the same time")


def infer_normalised(call: OpCall) -> Sequence[TensorType]:
    x = _check(call, (1, 2))
    vector = TensorType(x.shape[1:2], statistics_type(x.dtype))
    old = [call.input(i) for i in (OLD, OLD + 1) if call.has_input(i)]
    if call.output_count > PLACE and len(old) < 2:
        raise ValueError(f"{call.identifier}: new running statistics need the old ones")
    return x, vector, vector, *old


@widened
def normalised(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """y, mean and variance of the batch, new running statistics if the old ones are operands."""
    _alone(call)
    x, scale, bias, _, *old = operands
    mean, variance = statistics(call, (x,))
    keep = float(call.attribute("momentum", MOMENTUM))
    new = zip(old, (mean, variance), strict=False)
    running = [(was * keep + now * (1 - keep)).astype(was.dtype) for was, now in new]
    column = (-1, *(1,) * (x.ndim - 2))
    factor = scale / np.sqrt(variance + call.attribute("epsilon", EPSILON))
    y = (x - mean.reshape(column)) * factor.reshape(column) + bias.reshape(column)
    return y.astype(x.dtype), mean, variance, *running


def infer_gradient(call: OpCall) -> Sequence[TensorType]:
    x, scale = _check(call, (1, 3, 4)), call.input(1)
    if call.input(2).shape != x.shape or int(call.attributes["count"]) < 1:
        raise ValueError(f"{call.identifier}: dY {call.input(2)} is not like X {x}, or count < 1")
    return x, scale, scale


@widened
def gradient(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """dX of a share; dScale and dB of the batch. Mean and variance are operands 3 and 4."""
    _alone(call)
    x, scale, dy, mean, variance = operands[:FLOW_FIRST]
    return flow(call, (x, scale, dy, mean, variance, *sums(call, (x, mean, dy))))


def _example(shape: tuple[int, ...], *, running: bool) -> Example:
    vector = Sample(shape[1:2], low=0.5, high=1.5)
    place = Sample((words_of(1, shape[1]),), "int32", low=0)
    old = (vector, vector) if running else ()
    attributes = {"counts": (shape[0],), "momentum": 0.7}
    operands = (Sample(shape), vector, vector, place, *old)
    return Example(operands, attributes, 5 if running else 3, gradient=False)


def _gradient_example(shape: tuple[int, ...], outputs: int) -> Example:
    vector = Sample(shape[1:2], low=0.5, high=1.5)
    place = Sample((words_of(1, shape[1]),), "int32", low=0)
    count = shape[0] * int(np.prod(shape[2:]))
    attributes = {"counts": (shape[0],), "count": count, "epsilon": 1e-3}
    operands = (Sample(shape), vector, Sample(shape), vector, vector, place)
    return Example(operands, attributes, outputs, gradient=False)


OPS = (
    OpDef(
        "JointNormalization",
        infer_normalised,
        normalised,
        domain=COEXEC,
        not_differentiable=MADE_LATE,
        work=streaming_work(8),
        in_place=((0, 0), (3, OLD), (4, OLD + 1)),
        examples=(
            _example((3, 5, 3, 3), running=True),
            _example((5, 3, 7, 6), running=False),
            _example((2, 9, 8, 16), running=True),
        ),
    ),
    OpDef(
        "JointNormalizationGrad",
        infer_gradient,
        gradient,
        domain=COEXEC,
        not_differentiable=MADE_LATE,
        work=streaming_work(9),
        # A channel is read for the last time when that of dX is written.
        in_place=((0, 2), (0, 0)),
        examples=(
            _gradient_example((3, 5, 3, 3), 3),
            _gradient_example((5, 3, 7, 6), 1),
            _gradient_example((2, 9, 8, 16), 3),
        ),
    ),
)
