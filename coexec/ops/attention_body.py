"""Attention in simpler operators: forwards as a function body, backwards as a gradient rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall
from coexec.ops.attention_geometry import AttentionGeometry
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import GradientScope
from coexec.ops.precision import HALVES

Emitter = FunctionBuilder | GradientScope


@dataclass(frozen=True)
class _Stages:
    """Values on the way: operands by heads, scores at each stage, and weights."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    scores: ir.Value
    capped: ir.Value
    biased: ir.Value
    weights: ir.Value


class _Writer:
    """Emits the parts of one call into a body or a gradient."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.call: OpCall = e.call
        self.g = AttentionGeometry.of(e.call)
        self.dtype = e.call.input(0).dtype

    def operand(self, index: int) -> ir.Value:
        value = self.e.inputs[index]
        if value is None:
            raise ValueError(f"Attention: input {index} is missing")
        return value

    def number(self, value: Any) -> ir.Value:
        """A constant in the operands' type."""
        return self.e.constant(value, self.dtype)

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        return self.e.op("Reshape", [value, self.e.constant(np.array(shape, np.int64), "int64")])

    def transpose(self, value: ir.Value, *perm: int) -> ir.Value:
        return self.e.op("Transpose", [value], {"perm": perm})

    def split(self, value: ir.Value, heads: int, size: int) -> ir.Value:
        """(batch, rows, heads * size) to (batch, heads, rows, size)."""
        if not self.g.packed:
            return value
        return self.transpose(self.reshape(value, self.g.batch, -1, heads, size), 0, 2, 1, 3)

    def merge(self, value: ir.Value, width: int) -> ir.Value:
        """The reverse of :meth:`split`."""
        if not self.g.packed:
            return value
        return self.reshape(self.transpose(value, 0, 2, 1, 3), self.g.batch, -1, width)

    def grouped(self, value: ir.Value, size: int) -> ir.Value:
        """Query heads that share a key head as rows of one: no key has to be repeated for them."""
        g = self.g
        if g.repeats == 1:
            return value
        return self.reshape(value, g.batch, g.kv_heads, g.repeats * g.rows, size)

    def single(self, value: ir.Value, size: int) -> ir.Value:
        """The reverse of :meth:`grouped`."""
        if self.g.repeats == 1:
            return value
        return self.reshape(value, self.g.batch, self.g.heads, self.g.rows, size)

    def product(self, left: ir.Value, inner: int, right: ir.Value, size: int) -> ir.Value:
        """Rows of all heads (inner) times matrices of key heads (inner, size)."""
        return self.single(self.e.op("MatMul", [self.grouped(left, inner), right]), size)

    def over_rows(self, left: ir.Value, inner: int, right: ir.Value, size: int) -> ir.Value:
        """For each key head the sum over its queries' rows: (inner, size)."""
        turned = self.transpose(self.grouped(left, inner), 0, 1, 3, 2)
        return self.e.op("MatMul", [turned, self.grouped(right, size)])

    def cached(self, index: int, size: int) -> ir.Value:
        """Key (1) or value (2) with the past in front."""
        fresh = self.split(self.operand(index), self.g.kv_heads, size)
        if not self.call.has_input(4):
            return fresh
        return self.e.op("Concat", [self.operand(index + 3), fresh], {"axis": 2})

    def bias(self) -> ir.Value | None:
        """What is added to the scores, or None for nothing."""
        parts: list[ir.Value] = []
        g = self.g
        if self.call.has_input(6):
            parts.append(self._length_bias())
        elif g.bounded:
            parts.append(self.number(np.where(g.allowed(g.offset or 0), 0.0, -np.inf)))
        if self.call.has_input(3):
            parts.append(self._mask_bias())
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else self.e.op("Add", parts)

    def _mask_bias(self) -> ir.Value:
        kind = self.call.input(3)
        mask = self.operand(3)
        if kind.dtype == np.bool_:
            mask = self.e.op("Where", [mask, self.number(0.0), self.number(-np.inf)])
        short = self.g.columns - kind.shape[-1]
        if not short:
            return mask
        rest = self.number(np.full((*kind.shape[:-1], short), -np.inf))
        return self.e.op("Concat", [mask, rest], {"axis": -1})

    def _length_bias(self) -> ir.Value:
        """-inf beyond each image's own number of keys, and beyond positions relative to it."""
        g = self.g
        lengths = self.e.op("Cast", [self.operand(6)], {"to": int(ir.DataType.INT64)})
        lengths = self.reshape(lengths, g.batch, 1, 1, 1)
        keys = np.arange(g.columns)
        allowed = self.e.op("Less", [self._int64(keys), lengths])
        shift = keys - np.arange(g.rows)[:, None] + g.rows
        ahead = self.e.op("Sub", [self._int64(shift), lengths])
        limits = [("Less", 1, g.causal), ("Less", g.right + 1, g.right >= 0)]
        limits.append(("Greater", -g.left - 1, g.left >= 0))
        for comparison, limit, active in limits:
            if active:
                near = self.e.op(comparison, [ahead, self._int64(np.array(limit))])
                allowed = self.e.op("And", [allowed, near])
        return self.e.op("Where", [allowed, self.number(0.0), self.number(-np.inf)])

    def _int64(self, values: Array) -> ir.Value:
        return self.e.constant(values, "int64")

    def scale(self, value: ir.Value, factor: float) -> ir.Value:
        return self.e.op("Mul", [value, self.number(factor)])

    def raw_scores(self, query: ir.Value, key: ir.Value) -> ir.Value:
        """Scaled products; 16-bit floats share the scale between both sides against overflow."""
        g, turned = self.g, self.transpose(key, 0, 1, 3, 2)
        factor = g.scale
        if self.dtype.name in HALVES:
            factor = sqrt(factor)
            turned = self.scale(turned, factor)
        return self.product(self.scale(query, factor), g.head_size, turned, g.columns)

    def softmax(self, biased: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Weights; zero for a query without keys (its bias is -inf everywhere)."""
        precision = int(self.call.attribute("softmax_precision", 0))
        own = int(ir.DataType.from_numpy(self.dtype))
        weights = biased
        if precision not in (0, own):
            weights = self.e.op("Cast", [weights], {"to": precision})
        weights = self.e.op("Softmax", [weights], {"axis": -1})
        if precision not in (0, own):
            weights = self.e.op("Cast", [weights], {"to": own})
        if bias is None or not self.g.may_be_empty(self.call):
            return weights
        axes = self._int64(np.array([-1]))
        best = self.e.op("ReduceMax", [bias, axes], {"keepdims": 1})
        empty = self.e.op("Equal", [best, self.number(-np.inf)])
        return self.e.op("Where", [empty, self.number(0.0), weights])

    def forward(self) -> _Stages:
        """Everything up to the attention weights."""
        g = self.g
        query = self.split(self.operand(0), g.heads, g.head_size)
        key, value = self.cached(1, g.head_size), self.cached(2, g.value_size)
        scores = capped = self.raw_scores(query, key)
        if g.softcap > 0:
            squashed = self.e.op("Tanh", [self.scale(scores, 1 / g.softcap)])
            capped = self.scale(squashed, g.softcap)
        bias = self.bias()
        biased = capped if bias is None else self.e.op("Add", [capped, bias])
        weights = self.softmax(biased, bias)
        return _Stages(query, key, value, scores, capped, biased, weights)


def attention_body(call: OpCall) -> ir.Function | None:
    """MatMul, Softmax and elementwise operators on the four-dimensional form."""
    b = FunctionBuilder(call)
    w = _Writer(b)
    s = w.forward()
    g = w.g
    y = w.merge(w.product(s.weights, g.columns, s.value, g.value_size), g.heads * g.value_size)
    mode = int(call.attribute("qk_matmul_output_mode", 0))
    shown = (s.scores, s.capped, s.biased, s.weights)[mode]
    outputs = [y, s.key, s.value, shown][: call.output_count]
    # An output that is an operand, or is there twice, needs a node of its own.
    return b.function([outputs[0], *(b.op("Identity", [value]) for value in outputs[1:])])


def attention_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """Recomputes the weights P, then dS = P (dP - sum(dP P)) for the scores S."""
    w = _Writer(s)
    g, f = w.g, w.forward()
    dy = w.split(s.grad(), g.heads, g.value_size)
    extra = s.grads[3] if len(s.grads) > 3 else None
    mode = int(s.call.attribute("qk_matmul_output_mode", 0))
    shown = [extra if stage == mode else None for stage in range(4)]
    dvalue = w.over_rows(f.weights, g.columns, dy, g.value_size)
    turned = w.transpose(f.value, 0, 1, 3, 2)
    dweights = _plus(s, w.product(dy, g.value_size, turned, g.columns), shown[3])
    product = s.op("Mul", [dweights, f.weights])
    axes = s.constant(np.array([-1], np.int64), "int64")
    total = s.op("ReduceSum", [product, axes], {"keepdims": 1})
    dbiased = s.op("Sub", [product, s.op("Mul", [f.weights, total])])
    dbiased = _plus(s, dbiased, shown[2])
    dscores = _plus(s, _uncap(w, f, _plus(s, dbiased, shown[1])), shown[0])
    scaled = w.scale(dscores, g.scale)
    dquery = w.product(scaled, g.columns, f.key, g.head_size)
    dkey = w.over_rows(scaled, g.columns, f.query, g.head_size)
    dq = w.merge(dquery, g.heads * g.head_size)
    dkey = _plus(s, dkey, _grad(s, 1))
    dvalue = _plus(s, dvalue, _grad(s, 2))
    dpast_key, dk = _uncached(w, dkey, g.head_size)
    dpast_value, dv = _uncached(w, dvalue, g.value_size)
    results = (dq, dk, dv, _mask_gradient(w, dbiased), dpast_key, dpast_value, None)
    return results[: len(s.inputs)]


def _grad(s: GradientScope, index: int) -> ir.Value | None:
    return s.grads[index] if index < len(s.grads) else None


def _plus(s: GradientScope, value: ir.Value, more: ir.Value | None) -> ir.Value:
    return value if more is None else s.op("Add", [value, more])


def _uncap(w: _Writer, f: _Stages, gradient: ir.Value) -> ir.Value:
    """Through softcap * tanh(scores / softcap)."""
    if w.g.softcap <= 0:
        return gradient
    ratio = w.scale(f.capped, 1 / w.g.softcap)
    slope = w.e.op("Sub", [w.number(1.0), w.e.op("Mul", [ratio, ratio])])
    return w.e.op("Mul", [gradient, slope])


def _uncached(w: _Writer, gradient: ir.Value, size: int) -> tuple[ir.Value | None, ir.Value]:
    """Gradients of the past and of the fresh part of a key or value."""
    g = w.g

    def rows(first: int, last: int) -> ir.Value:
        bounds = [w.e.constant(np.array([v], np.int64), "int64") for v in (first, last, 2)]
        return w.e.op("Slice", [gradient, *bounds])

    past = rows(0, g.past) if w.call.has_input(4) else None
    fresh = gradient if past is None else rows(g.past, g.columns)
    return past, w.merge(fresh, g.kv_heads * size)


def _mask_gradient(w: _Writer, dbiased: ir.Value) -> ir.Value | None:
    """The gradient of the biased scores, cut to the keys that the mask covers."""
    if not w.call.has_input(3) or w.call.input(3).dtype == np.bool_:
        return None
    covered = w.call.input(3).shape[-1]
    if covered == w.g.columns:
        return dbiased
    bounds = [w.e.constant(np.array([v], np.int64), "int64") for v in (0, covered, 3)]
    return w.e.op("Slice", [dbiased, *bounds])
