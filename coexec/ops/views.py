"""Operators that only change the shape: Reshape, Flatten, Squeeze, Unsqueeze, Identity."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
