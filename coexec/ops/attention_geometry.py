"""Sizes and masks of an Attention call, in the four-dimensional form (batch, heads, rows, size)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from coexec.core.types import Array, OpCall, TensorType

PACKED_RANK = 3
"""Rank of operands that hold the heads side by side in the last axis."""


@dataclass(frozen=True)
class AttentionGeometry:
    """What https://onnx.ai/onnx/operators/onnx__Attention.html derives from shapes and attributes.

    ``rows`` are queries, ``columns`` all keys (``past`` of them from the cache). A query at row i
    stands at position ``i + offset``; ``offset`` is None where it depends on nonpad_kv_seqlen.
    """

    batch: int
    heads: int
    kv_heads: int
    rows: int
    past: int
    columns: int
    head_size: int
    value_size: int
    scale: float
    softcap: float
    causal: bool
    left: int
    right: int
    packed: bool
    offset: int | None

    @property
    def score_shape(self) -> tuple[int, ...]:
        return (self.batch, self.heads, self.rows, self.columns)

    @property
    def repeats(self) -> int:
        """Query heads that share one key head."""
        return self.heads // self.kv_heads

    @property
    def bounded(self) -> bool:
        """Whether positions limit what a query attends to."""
        return self.causal or self.left >= 0 or self.right >= 0

    @classmethod
    def of(cls, call: OpCall) -> AttentionGeometry:
        """Geometry of a call; ``ValueError`` where operands do not fit."""
        packed = call.input(0).rank == PACKED_RANK
        q_shape, k_shape, v_shape = (_heads_first(call, i) for i in range(3))
        batch, heads, rows, head_size = q_shape
        kv_heads, fresh = k_shape[1:3]
        if k_shape[3] != head_size or v_shape[:3] != k_shape[:3] or k_shape[0] != batch:
            raise ValueError(f"Attention: {call.input(0)}, {call.input(1)}, {call.input(2)}")
        if heads % kv_heads:
            raise ValueError(f"Attention: {kv_heads} key heads do not divide {heads}")
        if call.has_input(4) != call.has_input(5) or (call.has_input(4) and call.has_input(6)):
            raise ValueError("Attention: past_key goes with past_value, without nonpad_kv_seqlen")
        past = call.input(4).shape[2] if call.has_input(4) else 0
        scale = call.attribute("scale")
        return cls(
            batch,
            heads,
            kv_heads,
            rows,
            past,
            past + fresh,
            head_size,
            v_shape[3],
            1 / sqrt(head_size) if scale is None else float(scale),
            float(call.attribute("softcap", 0.0)),
            bool(call.attribute("is_causal", 0)),
            int(call.attribute("left_window_size", -1)),
            int(call.attribute("right_window_size", -1)),
            packed,
            None if call.has_input(6) else past,
        )

    def allowed(self, offset: Array | int) -> Array:
        """Which keys a query may attend to by position: bool (rows, columns).

        A vector of offsets, one per image, gives (batch, 1, rows, columns).
        """
        shift = np.asarray(offset)
        if shift.ndim:
            shift = shift.reshape(-1, 1, 1, 1)
        ahead = np.arange(self.columns) - (np.arange(self.rows)[:, None] + shift)
        allowed: Array = np.ones(ahead.shape, bool)
        if self.causal:
            allowed &= ahead <= 0
        if self.left >= 0:
            allowed &= -ahead <= self.left
        if self.right >= 0:
            allowed &= ahead <= self.right
        return allowed

    def may_be_empty(self, call: OpCall) -> bool:
        """Whether some query may have no key at all (known only when running, or known now)."""
        if call.has_input(3) or call.has_input(6):
            return True
        return self.bounded and not bool(self.allowed(self.offset or 0).any(axis=-1).all())


def _heads_first(call: OpCall, position: int) -> tuple[int, int, int, int]:
    """Shape of Q, K or V as (batch, heads, sequence, size)."""
    kind: TensorType = call.input(position)
    if kind.rank == PACKED_RANK:
        heads = int(call.attribute("q_num_heads" if position == 0 else "kv_num_heads", 0))
        if heads < 1 or kind.shape[2] % heads:
            raise ValueError(f"Attention: {heads} heads do not divide {kind}")
        return kind.shape[0], heads, kind.shape[1], kind.shape[2] // heads
    if kind.rank != PACKED_RANK + 1:
        raise ValueError(f"Attention: {kind} has neither three nor four axes")
    batch, heads, rows, size = kind.shape
    return batch, heads, rows, size
