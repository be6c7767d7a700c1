"""Operators that move elements without computing: Transpose, Concat, Slice, Pad, ..."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
