"""ONNX Runtime's operators of transformers as standard operators, ``Attention`` among them.

Forms and defaults are those of its docs/ContribOperators.md. What of them cannot be seen from
shapes that the model gives, or is for its GPU kernels only, is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, flag, kept, operand, required
from coexec.frontend.rewrite import Emitter

NEWER_OPSET = 23
"""The first with Attention and RotaryEmbedding."""

FORBIDDEN = -10000.0
"""What is added to the score of a key that a mask forbids, unless the node says otherwise."""

PACKED, BY_HEADS, TOGETHER = 3, 4, 5
"""Ranks: (batch, rows, heads * size), (batch, heads, rows, size), (batch, rows, heads, 3, size)."""

KEEPS_SHAPE = ("Cast", "Identity")
KEEPS_BATCH = {
    "Add": 0,
    "Attention": 0,
    "Cast": 0,
    "Gather": 1,
    "Gelu": 0,
    "Identity": 0,
    "LayerNormalization": 0,
    "MatMul": 0,
    "RMSNormalization": 0,
}
"""The operand whose first axis is the result's, as models have these operators."""
INT32, INT64 = int(ir.DataType.INT32), int(ir.DataType.INT64)


def shape_of(value: ir.Value) -> ir.Shape | None:
    """The shape of a value as the model gives it, also in front of a cast."""
    producer = value.producer()
    if value.shape is None and producer is not None and producer.op_type in KEEPS_SHAPE:
        before = producer.inputs[0]
        return None if before is None else shape_of(before)
    return value.shape


def batch_of(value: ir.Value) -> int | ir.SymbolicDim | None:
    """The first axis of the tensor that a value was made of by operators of transformers."""
    producer = value.producer()
    while value.shape is None and producer is not None and producer.op_type in KEEPS_BATCH:
        before = producer.inputs[KEEPS_BATCH[producer.op_type]]
        if before is None:
            return None
        value, producer = before, before.producer()
    shape = value.shape
    return shape[0] if shape is not None and shape.rank() > 1 else None


def rank_of(value: ir.Value) -> int | None:
    """Number of axes, if the model gives it."""
    shape = shape_of(value)
    return None if shape is None else shape.rank()


def size_of(value: ir.Value, axis: int) -> int | None:
    """Length of an axis, if the model gives it as a number."""
    shape = shape_of(value)
    size = None if shape is None or shape.rank() == 0 else shape[axis]
    return size if isinstance(size, int) else None


def number(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    given = node.attributes.get(name)
    return default if given is None else given.as_int()


def added(emit: Emitter, value: ir.Value | None, other: ir.Value | None) -> ir.Value | None:
    """The sum of those that are there."""
    if value is None or other is None:
        return other if value is None else value
    return emit.op("Add", [value, other])


def length(emit: Emitter, value: ir.Value, axis: int) -> ir.Value:
    """Length of an axis when running: int64 (1)."""
    return emit.op("Gather", [emit.op("Shape", [value]), emit.ints([axis])])


def counted(emit: Emitter, count: ir.Value) -> ir.Value:
    """0, 1, .. below ``count`` (1): int64 (count)."""
    end = emit.op("Squeeze", [count])
    return emit.op("Range", [emit.constant(0, np.int64), end, emit.constant(1, np.int64)])


def cut(emit: Emitter, value: ir.Value, sizes: Sequence[int]) -> Sequence[ir.Value]:
    """Parts of a value along its last axis."""
    return emit.ops("Split", [value, emit.ints(sizes)], len(sizes), {"axis": -1})


def mask_bias(
    node: ir.Node, emit: Emitter, mask: ir.Value, queries: ir.Value, keys: ir.Value
) -> ir.Value | None:
    """What a mask adds to scores (batch, heads, rows, keys), or ``None``: it is not covered.

    Masks of ones and zeros are (batch, keys) or (batch, rows, keys), lengths (batch). ``queries``
    and ``keys`` have batch and rows, or keys, in front.
    """
    rank = rank_of(mask)
    if rank == 1:
        lengths, batch = shape_of(mask), batch_of(queries)
        if lengths is None or batch is None or lengths[0] != batch:
            return None  # it may hold the beginnings, too
        places = counted(emit, length(emit, keys, 1))
        ends = emit.op("Unsqueeze", [emit.op("Cast", [mask], {"to": INT64}), emit.ints([1])])
        allowed = emit.op("Less", [places, ends])
    elif rank in (2, 3):
        allowed = emit.op("Greater", [mask, emit.op("CastLike", [emit.ints([0]), mask])])
    else:
        return None
    given = node.attributes.get("mask_filter_value")
    value = emit.constant(FORBIDDEN if given is None else given.as_float(), np.float32)
    bias = emit.op("Where", [allowed, emit.constant(0.0, np.float32), value])
    axes = [1] if rank == PACKED else [1, 2]
    return emit.op("Unsqueeze", [emit.op("CastLike", [bias, queries]), emit.ints(axes)])


def attend(node: ir.Node, emit: Emitter, operands: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
    """ONNX's Attention of queries, keys and values, mask, and keys and values of before.

    Results are the states, then all keys and values by heads.
    """
    heads = number(node, "num_heads", 0)
    attributes: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads}
    scale = node.attributes.get("scale")
    if scale is not None and scale.as_float():
        attributes["scale"] = scale.as_float()
    if flag(node, "unidirectional"):
        attributes["is_causal"] = 1
    return Emitter(emit.node, NEWER_OPSET).ops("Attention", operands, 3, attributes)


def attention(node: ir.Node, emit: Emitter) -> Results:
    """Attention of a tensor to itself, with one product for queries, keys and values."""
    x, weights, mask = required(node, 0), required(node, 1), operand(node, 3)
    past, scores = operand(node, 4), operand(node, 5)
    sizes = _sizes(node, weights)
    masked = None if mask is None else mask_bias(node, emit, mask, x, x)
    if not _fits(mask, masked, past) or not sizes:
        return NOT_COVERED
    if flag(node, "do_rotary") or flag(node, "past_present_share_buffer"):
        return NOT_COVERED
    whole = added(emit, emit.op("MatMul", [x, weights]), operand(node, 2))
    assert whole is not None  # the product is there
    operands: list[ir.Value | None] = [*cut(emit, whole, sizes), added(emit, masked, scores)]
    if past is not None:
        halves = emit.ops("Split", [past], 2, {"axis": 0, "num_outputs": 2})
        operands += [emit.op("Squeeze", [half, emit.ints([0])]) for half in halves]
    y, keys, values = attend(node, emit, operands)
    present = [emit.op("Unsqueeze", [each, emit.ints([0])]) for each in (keys, values)]
    return y, emit.op("Concat", present, {"axis": 0})


def _fits(mask: ir.Value | None, masked: ir.Value | None, past: ir.Value | None) -> bool:
    """Whether a mask is understood: with keys of before, lengths say nothing of the new ones."""
    return mask is None or (masked is not None and (past is None or rank_of(mask) != 1))


def _sizes(node: ir.Node, weights: ir.Value) -> list[int]:
    """Columns of queries, keys and values; none where the model does not give them."""
    given = node.attributes.get("qkv_hidden_sizes")
    if given is not None:
        return list(given.as_ints())
    return [(size_of(weights, 1) or 0) // 3] * 3 if size_of(weights, 1) else []


def multi_head_attention(node: ir.Node, emit: Emitter) -> Results:
    """MultiHeadAttention: queries, keys and values are operands of their own, or in one of them."""
    q, k, v = _unpacked(node, emit)
    mask, scores, past_keys, past_values = (operand(node, index) for index in range(4, 8))
    shares_buffers = operand(node, 8) is not None or operand(node, 9) is not None
    if k is None or v is None or rank_of(q) != PACKED or shares_buffers:
        return NOT_COVERED
    biases = _biases(node, emit, q, (k, v))
    keys, values = _packed(emit, k), _packed(emit, v)
    if biases is None or keys is None or values is None:
        return NOT_COVERED
    masked = None if mask is None else mask_bias(node, emit, mask, q, keys)
    if not _fits(mask, masked, past_keys):
        return NOT_COVERED
    operands = [added(emit, x, bias) for x, bias in zip((q, keys, values), biases, strict=True)]
    return tuple(
        attend(node, emit, [*operands, added(emit, masked, scores), past_keys, past_values])
    )


def _unpacked(node: ir.Node, emit: Emitter) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
    """Queries, keys and values; of (batch, rows, heads, 3 or 2, size) where they come together."""
    q, k, v = required(node, 0), operand(node, 1), operand(node, 2)
    if k is None and v is None and rank_of(q) == TOGETHER:
        first, second, third = _apart(emit, q, 3)
        return first, second, third
    if k is not None and v is None and rank_of(k) == TOGETHER:
        second, third = _apart(emit, k, 2)
        return q, second, third
    return q, k, v


def _apart(emit: Emitter, whole: ir.Value, count: int) -> list[ir.Value]:
    """(batch, rows, heads, count, size) as ``count`` tensors (batch, rows, heads * size)."""
    parts = emit.ops("Split", [whole, emit.ints([1] * count)], count, {"axis": 3})
    rows = [emit.op("Reshape", [part, emit.ints([0, 0, -1])]) for part in parts]
    if whole.shape is not None:
        for row in rows:
            row.shape = ir.Shape([*whole.shape.dims[:2], None])
    return rows


def _biases(
    node: ir.Node, emit: Emitter, q: ir.Value, others: Sequence[ir.Value]
) -> Sequence[ir.Value | None] | None:
    """What is added to queries, keys and values; ``None`` where sizes are not known."""
    bias = operand(node, 3)
    if bias is None:
        return (None, None, None)
    width, total = size_of(q, 2), size_of(bias, 0)
    if width is None or total is None or any(rank_of(each) != PACKED for each in others):
        return None
    return cut(emit, bias, [width, width, total - 2 * width])


def _packed(emit: Emitter, value: ir.Value) -> ir.Value | None:
    """With the heads side by side; ``None`` where it is not known how they stand."""
    if rank_of(value) == PACKED:
        return value
    if rank_of(value) != BY_HEADS:
        return None
    rows = emit.op("Transpose", [value], {"perm": (0, 2, 1, 3)})
    return emit.op("Reshape", [rows, emit.ints([0, 0, -1])])


def rotary_embedding(node: ir.Node, emit: Emitter) -> Results:
    """RotaryEmbedding, from before ONNX had it: positions are of each row, or of the first one."""
    x, positions, cos, sin = (required(node, index) for index in range(4))
    rank, scale = rank_of(x), node.attributes.get("scale")
    heads = _rotary_heads(node, x, cos)
    scaled = scale is not None and scale.as_float() != 1.0
    if heads is None or scaled or flag(node, "is_packed_batching"):
        return NOT_COVERED
    if rank_of(positions) == 1:
        rows = length(emit, x, 1 if rank == PACKED else 2)
        shape = emit.op("Concat", [length(emit, x, 0), rows], {"axis": 0})
        places = emit.op("Add", [counted(emit, rows), positions])
        positions = emit.op("Expand", [places, shape])
    attributes: dict[str, Any] = dict(kept(node, "interleaved", "rotary_embedding_dim"))
    if rank == PACKED:
        attributes["num_heads"] = heads
    newer = Emitter(emit.node, NEWER_OPSET)
    return (newer.op("RotaryEmbedding", [x, cos, sin, positions], attributes),)


def _rotary_heads(node: ir.Node, x: ir.Value, cos: ir.Value) -> int | None:
    """How many heads stand side by side; ``None`` where that is not known."""
    rank, heads = rank_of(x), number(node, "num_heads", 0)
    if rank not in (PACKED, BY_HEADS) or rank_of(node.inputs[1] or x) not in (1, 2):
        return None
    width, half = size_of(x, 2), size_of(cos, 1)
    if heads or rank == BY_HEADS:
        return heads
    return None if width is None or not half else width // (2 * half)


def embed_layer_normalization(node: ir.Node, emit: Emitter) -> Results:
    """EmbedLayerNormalization: of the sum of embeddings; how many a mask allows; that sum."""
    ids, segments = required(node, 0), operand(node, 1)
    words, places = required(node, 2), required(node, 3)
    mask, positions = operand(node, 7), operand(node, 8)
    if positions is None:
        positions = counted(emit, length(emit, ids, 1))
    whole = emit.op("Gather", [words, ids])
    whole = emit.op("Add", [whole, emit.op("Gather", [places, positions])])
    if segments is not None:
        of_segments = emit.op("Gather", [required(node, 4), segments])
        whole = emit.op("Add", [whole, of_segments])
    given = node.attributes.get("epsilon")
    attributes = {"axis": -1, "epsilon": 1e-12 if given is None else given.as_float()}
    y = emit.op("LayerNormalization", [whole, required(node, 5), required(node, 6)], attributes)
    return y, _allowed(emit, ids, mask), whole


def _allowed(emit: Emitter, ids: ir.Value, mask: ir.Value | None) -> ir.Value:
    """Ones of each row of a mask, 0 without one: int32 (batch)."""
    if mask is None:
        batch = length(emit, ids, 0)
        return emit.op("Expand", [emit.constant([0], np.int32), batch])
    ones = emit.op("Equal", [mask, emit.op("CastLike", [emit.ints([1]), mask])])
    whole = emit.op("Cast", [ones], {"to": INT32})
    counts = emit.op("ReduceSum", [whole, emit.ints([1])], {"keepdims": 0})
    shape = shape_of(ids)
    counts.shape = None if shape is None else ir.Shape([shape[0]])
    return counts


OF_ONNX_RUNTIME: Mapping[str, Rewrite] = {
    "Attention": attention,
    "EmbedLayerNormalization": embed_layer_normalization,
    "MultiHeadAttention": multi_head_attention,
    "RotaryEmbedding": rotary_embedding,
}
"""By name, in ``com.microsoft``."""
