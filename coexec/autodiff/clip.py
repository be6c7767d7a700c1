"""Clipping of gradients: by their joint norm, or each number by itself."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of


def clipped(
    g: GraphBuilder, grads: Mapping[str, ir.Value], clip_norm: float
) -> dict[str, ir.Value]:
    """Scale all gradients so that their joint norm is at most ``clip_norm`` (Pascanu, 2013)."""
    squares = [g.op("ReduceSumSquare", [value], {"keepdims": 0}) for value in grads.values()]
    norm = g.op("Sqrt", [g.op("Sum", squares) if len(squares) > 1 else squares[0]])
    dtype = type_of(norm).dtype
    limit = g.constant(clip_norm, dtype)
    # max(norm, limit) in the denominator: gradients below the limit are multiplied by exactly 1.
    scale = g.op("Div", [limit, g.op("Max", [norm, limit])])
    return {name: g.op("Mul", [value, scale]) for name, value in grads.items()}


def clamped(
    g: GraphBuilder, grads: Mapping[str, ir.Value], clip_value: float
) -> dict[str, ir.Value]:
    """Each number of all gradients, within ``clip_value`` of 0."""
    dtypes = {name: type_of(value).dtype for name, value in grads.items()}
    ends = {
        dtype: [g.constant(-clip_value, dtype), g.constant(clip_value, dtype)]
        for dtype in set(dtypes.values())
    }
    return {name: g.op("Clip", [value, *ends[dtypes[name]]]) for name, value in grads.items()}
