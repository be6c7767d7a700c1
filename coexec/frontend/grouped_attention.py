"""ONNX Runtime's GroupQueryAttention, which language models are exported with, as ``Attention``.

Its form is that of its docs/ContribOperators.md. Keys and values of before lie in caches with room
behind them, or without; each sample may be of another length. Quantised caches, caches of a window
and sinks are not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.frontend.fused_attention import INT64, counted, length, number, size_of
from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, flag, operand, required
from coexec.frontend.rewrite import Emitter

OPSET = 24
"""The first with TensorScatter and the Attention of today."""

NOT_READ = ("sliding_window_cache", "smooth_softmax", "qk_output")
"""Attributes that must be 0."""

HEAD_SINK = 11
"""From this operand on: sinks, scales of quantised caches, norms of heads, padded chunks."""


@dataclass(frozen=True)
class _Lengths:
    """Numbers of rows, int64: all that are new (1), the most with those of before (1).

    ``before`` (batch) are in a cache; ``ends`` (batch) are the lengths of samples without padding.
    """

    rows: ir.Value
    total: ir.Value
    before: ir.Value
    ends: ir.Value


def group_query_attention(node: ir.Node, emit: Emitter) -> Results:
    """Results are the states (batch, rows, heads * size), then keys and values by heads."""
    heads, kv_heads = number(node, "num_heads", 0), number(node, "kv_num_heads", 0)
    extras = any(value is not None for value in node.inputs[HEAD_SINK:])
    if extras or any(flag(node, name) for name in NOT_READ) or not heads or not kv_heads:
        return NOT_COVERED
    newer = Emitter(emit.node, OPSET)
    parts = _parts(node, newer, heads, kv_heads)
    lengths = _lengths(node, newer)
    if parts is None:
        return NOT_COVERED
    q, k, v = parts
    if flag(node, "do_rotary"):
        turned = [_rotated(node, newer, x, lengths) for x in (q, k)]
        if turned[0] is None or turned[1] is None:
            return NOT_COVERED
        q, k = turned[0], turned[1]
    keys = _cached(newer, operand(node, 3), k, lengths)
    values = _cached(newer, operand(node, 4), v, lengths)
    attributes: dict[str, Any] = {}
    for name in ("scale", "softcap"):
        given = node.attributes.get(name)
        if given is not None and given.as_float():
            attributes[name] = given.as_float()
    mask = _mask(node, newer, lengths, keys, q)
    y = newer.op("Attention", [q, keys, values, mask], attributes)
    rows = newer.op("Transpose", [y], {"perm": (0, 2, 1, 3)})
    return newer.op("Reshape", [rows, newer.ints([0, 0, -1])]), keys, values


def _parts(
    node: ir.Node, emit: Emitter, heads: int, kv_heads: int
) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Queries, keys and values by heads; ``None`` where only two of them are there."""
    q, k, v = required(node, 0), operand(node, 1), operand(node, 2)
    if k is None and v is None:
        shape = emit.ints([0, 0, heads + 2 * kv_heads, -1])
        whole = emit.op("Reshape", [q, shape])
        counts = emit.ints([heads, kv_heads, kv_heads])
        pieces = emit.ops("Split", [whole, counts], 3, {"axis": 2})
    elif k is None or v is None:
        return None
    else:
        pieces = [
            emit.op("Reshape", [x, emit.ints([0, 0, count, -1])])
            for x, count in ((q, heads), (k, kv_heads), (v, kv_heads))
        ]
    first, second, third = (
        emit.op("Transpose", [piece], {"perm": (0, 2, 1, 3)}) for piece in pieces
    )
    return first, second, third


def _lengths(node: ir.Node, emit: Emitter) -> _Lengths:
    """A first prompt is as long as all there is; padding behind its samples is not looked at."""
    rows = length(emit, required(node, 0), 1)
    total = emit.op("Reshape", [_int64(emit, required(node, 6)), emit.ints([1])])
    last = emit.op("Reshape", [_int64(emit, required(node, 5)), emit.ints([-1])])
    ends = emit.op("Add", [last, emit.ints([1])])
    begun = emit.op("Less", [rows, total])
    before = emit.op("Where", [begun, emit.op("Sub", [ends, rows]), emit.ints([0])])
    return _Lengths(rows, total, before, ends)


def _int64(emit: Emitter, value: ir.Value) -> ir.Value:
    return emit.op("Cast", [value], {"to": INT64})


def _positions(emit: Emitter, lengths: _Lengths) -> ir.Value:
    """Where new rows stand: int64 (batch, rows)."""
    before = emit.op("Unsqueeze", [lengths.before, emit.ints([1])])
    return emit.op("Add", [before, counted(emit, lengths.rows)])


def _rotated(node: ir.Node, emit: Emitter, x: ir.Value, lengths: _Lengths) -> ir.Value | None:
    """With rotary embedding of each position; ``None`` where tables are of unknown width."""
    cos, sin, positions = operand(node, 7), operand(node, 8), operand(node, 9)
    half = None if cos is None else size_of(cos, 1)
    if half is None:
        return None
    x.shape = ir.Shape([None, None, None, None])  # the body of RotaryEmbedding hangs on the rank
    attributes: dict[str, Any] = {"rotary_embedding_dim": 2 * half}
    if flag(node, "rotary_interleaved"):
        attributes["interleaved"] = 1
    places = _positions(emit, lengths) if positions is None else _int64(emit, positions)
    return emit.op("RotaryEmbedding", [x, cos, sin, places], attributes)


def _cached(emit: Emitter, past: ir.Value | None, fresh: ir.Value, lengths: _Lengths) -> ir.Value:
    """New keys or values behind those of before, in a cache that has room for all."""
    if past is None:
        return fresh
    room = emit.op("Sub", [lengths.total, length(emit, past, 2)])
    missing = emit.op("Max", [room, emit.ints([0])])
    pads = emit.op("Concat", [emit.ints([0, 0, 0, 0, 0, 0]), missing, emit.ints([0])], {"axis": 0})
    whole = emit.op("Pad", [past, pads])
    return emit.op("TensorScatter", [whole, fresh, lengths.before], {"axis": 2})


def _mask(
    node: ir.Node, emit: Emitter, lengths: _Lengths, keys: ir.Value, like: ir.Value
) -> ir.Value:
    """Which keys of a cache a row attends to, or what is added to their scores, if anything.

    (batch, 1, rows, keys), or with heads in place of 1 where a bias has them.
    """
    places = counted(emit, length(emit, keys, 2))
    if number(node, "causal", 1):
        ends = emit.op("Add", [_positions(emit, lengths), emit.ints([1])])
    else:
        ends = emit.op("Unsqueeze", [lengths.ends, emit.ints([1])])
    ends = emit.op("Unsqueeze", [ends, emit.ints([1, 3])])
    allowed = emit.op("Less", [places, ends])
    window = number(node, "local_window_size", -1)
    if window > 0:
        near = emit.op("GreaterOrEqual", [places, emit.op("Sub", [ends, emit.ints([window])])])
        allowed = emit.op("And", [allowed, near])
    bias = operand(node, 10)
    if bias is None:
        return allowed
    room = emit.op("Sub", [length(emit, keys, 2), length(emit, bias, 3)])
    pads = emit.op("Concat", [emit.ints([0] * 7), room], {"axis": 0})
    whole = emit.op("Pad", [bias, pads])
    never = emit.op("CastLike", [emit.constant(-np.inf, np.float32), like])
    return emit.op("Where", [allowed, whole, never])


OF_ONNX_RUNTIME: Mapping[str, Rewrite] = {"GroupQueryAttention": group_query_attention}
"""By name, in ``com.microsoft``."""
