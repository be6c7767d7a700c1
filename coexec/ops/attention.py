"""Scaled dot-product attention (opsets 23 to 25): reference, body, and gradient.

Body and gradient are made of MatMul, Softmax and elementwise operators; shapes are static, so all
of the mask that depends on positions alone is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.attention_body import attention_body, attention_gradient
from coexec.ops.attention_geometry import AttentionGeometry
from coexec.ops.opdef import Example, OpDef, Sample, Work
from coexec.ops.precision import widened


def infer_attention(call: OpCall) -> Sequence[TensorType]:
    g = AttentionGeometry.of(call)
    q, k, v = call.input(0), call.input(1), call.input(2)
    if call.has_input(3):
        _check_mask(g, call.input(3))
    packed = (g.batch, g.rows, g.heads * g.value_size)
    shape = packed if g.packed else (g.batch, g.heads, g.rows, g.value_size)
    return (
        q.with_shape(shape),
        k.with_shape((g.batch, g.kv_heads, g.columns, g.head_size)),
        v.with_shape((g.batch, g.kv_heads, g.columns, g.value_size)),
        q.with_shape(g.score_shape),
    )


def _check_mask(g: AttentionGeometry, mask: TensorType) -> None:
    """A mask may be short of keys; it must broadcast otherwise."""
    if not mask.rank or mask.shape[-1] > g.columns:
        raise ValueError(f"Attention: mask {mask} does not fit {g.columns} keys")
    shape = (*mask.shape[:-1], g.columns)
    if np.broadcast_shapes(shape, g.score_shape) != g.score_shape:
        raise ValueError(f"Attention: mask {mask} does not broadcast to {g.score_shape}")


def _split_heads(x: Array, heads: int) -> Array:
    """(batch, rows, heads * size) to (batch, heads, rows, size)."""
    if x.ndim != 3:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _bias(call: OpCall, g: AttentionGeometry, operands: Sequence[Any], dtype: Any) -> Array:
    """What is added to the scores: 0 or the mask where a query attends, -inf elsewhere."""
    lengths = operands[6] if call.has_input(6) else None
    offset = g.offset if lengths is None else lengths.astype(np.int64) - g.rows
    forbidden = ~g.allowed(0 if offset is None else offset)
    if lengths is not None:
        forbidden = forbidden | (np.arange(g.columns) >= lengths.reshape(-1, 1, 1, 1))
    bias: Array = np.where(forbidden, -np.inf, 0.0).astype(dtype)
    if not call.has_input(3):
        return bias
    mask = operands[3]
    if mask.dtype == np.bool_:
        mask = np.where(mask, 0.0, -np.inf).astype(dtype)
    short = g.columns - mask.shape[-1]
    pads = [(0, 0)] * (mask.ndim - 1) + [(0, short)]
    return np.asarray(bias + np.pad(mask, pads, constant_values=-np.inf))


def _softmax(scores: Array, bias: Array) -> Array:
    """Softmax over keys; a query whose bias forbids every key gets zeros."""
    empty = np.isneginf(bias.max(axis=-1, keepdims=True))
    safe = np.where(empty, 0, scores)
    exponentials = np.exp(safe - safe.max(axis=-1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return np.where(empty, 0, weights)


@widened
def attention(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Softmax in the type of the operands, or in float64 where ``softmax_precision`` wants it."""
    g = AttentionGeometry.of(call)
    q = _split_heads(operands[0], g.heads)
    key, value = (_split_heads(operands[i], g.kv_heads) for i in (1, 2))
    if call.has_input(4):
        key = np.concatenate([operands[4], key], axis=2)
        value = np.concatenate([operands[5], value], axis=2)
    wide_key, wide_value = (np.repeat(t, g.repeats, axis=1) for t in (key, value))
    scores = np.matmul(q * q.dtype.type(g.scale), wide_key.swapaxes(2, 3))
    capped = g.softcap * np.tanh(scores / g.softcap) if g.softcap > 0 else scores
    bias = _bias(call, g, operands, q.dtype)
    biased = capped + bias
    double = int(call.attribute("softmax_precision", 0)) == ir.DataType.DOUBLE
    weights = _softmax(biased.astype(np.float64) if double else biased, bias).astype(q.dtype)
    y = np.matmul(weights, wide_value)
    if g.packed:
        y = y.swapaxes(1, 2).reshape(g.batch, g.rows, -1)
    shown = (scores, capped, biased, weights)[int(call.attribute("qk_matmul_output_mode", 0))]
    shown = np.broadcast_to(shown, g.score_shape)
    return y, key, value, shown


def attention_work(call: OpCall) -> Work:
    """Two matrix products, and 5 operations per score."""
    g = AttentionGeometry.of(call)
    scores = g.batch * g.heads * g.rows * g.columns
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(scores * (2 * (g.head_size + g.value_size) + 5), moved)


def _case(
    q: tuple[int, ...],
    k: tuple[int, ...],
    *more: Sample | None,
    v: tuple[int, ...] | None = None,
    outputs: int = 1,
    gradient: bool = True,
    **attributes: Any,
) -> Example:
    operands = (Sample(q), Sample(k), Sample(v or k), *more)
    version = 25 if "left_window_size" in attributes else 24
    return Example(operands, attributes, outputs, gradient, version=version)


_Q, _K = (2, 4, 3, 8), (2, 4, 5, 8)

OPS = (
    OpDef(
        "Attention",
        infer_attention,
        attention,
        gradient=attention_gradient,
        work=attention_work,
        body=attention_body,
        examples=(
            _case(_Q, _K),
            _case(_Q, _K, is_causal=1, scale=0.3),
            _case(_Q, (2, 2, 5, 8), v=(2, 2, 5, 6), softcap=2.0),
            _case(_Q, _K, Sample((3, 5))),
            _case(_Q, _K, Sample((2, 1, 3, 4)), is_causal=1),
            _case((2, 3, 12), (2, 4, 6), v=(2, 4, 10), q_num_heads=4, kv_num_heads=2),
            _case(
                (2, 2, 3, 4),
                (2, 2, 3, 4),
                None,
                Sample((2, 2, 2, 4)),
                Sample((2, 2, 2, 4)),
                outputs=3,
                is_causal=1,
            ),
            _case(_Q, _K, outputs=4, qk_matmul_output_mode=0),
            _case(_Q, _K, outputs=4, qk_matmul_output_mode=1, softcap=1.5),
            _case(_Q, _K, Sample((3, 5)), outputs=4, qk_matmul_output_mode=2),
            _case(_Q, _K, outputs=4, qk_matmul_output_mode=3),
            _case((1, 2, 6, 4), (1, 2, 6, 4), left_window_size=2, right_window_size=1),
            _case((2, 4, 1, 16), (2, 2, 300, 16), Sample((2, 1, 1, 300), "bool"), gradient=False),
            _case(
                *((1, 6, 2, 32), (1, 2, 70, 32), Sample((1, 6, 2, 70))),
                v=(1, 2, 70, 16),
                softcap=2.0,
                gradient=False,
            ),
            _case((1, 4, 1, 16), (1, 1, 5, 16), Sample((1, 1, 1, 5), "bool"), gradient=False),
            _case((1, 1, 4, 16), (1, 1, 4, 16), is_causal=1, gradient=False),
        ),
    ),
)
