"""Operators that add up over an axis of their operands: a sum of shares gives the whole result.

A weight gradient is a sum over the samples of a batch. Each processor computes it for its own
samples, and the results are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coexec.core.types import OpCall
from coexec.ops.reduce import reduce_axes

Contraction = Mapping[int, int]
"""By operand, the axis along which it is divided; other operands are read whole."""


def contractions(call: OpCall) -> Iterator[Contraction]:
    """The ways in which a typed call is the sum of calls on shares of its operands.

    Of a call with several results each is such a sum.
    """
    match call.identifier:
        case "coexec::ConvWeightGrad":
            yield {0: 0, 1: 0}
        case "coexec::ConvInputGrad" if call.attribute("group", 1) == 1:
            yield {0: 1, 1: 0}
        case "Gemm" if not call.has_input(2):
            yield {
                0: 0 if call.attribute("transA", 0) else 1,
                1: 1 if call.attribute("transB", 0) else 0,
            }
        case "MatMul" if call.input(0).rank > 1 and call.input(1).rank > 1:
            yield {0: call.input(0).rank - 1, 1: call.input(1).rank - 2}
        case "coexec::BatchNormalizationSums":
            yield {0: 0, 2: 0}
        case "ReduceSum":
            for axis in reduce_axes(call):
                yield {0: axis}
        case _:
            return
