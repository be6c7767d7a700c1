"""Operators that look up or place elements by index: Gather, Scatter, OneHot, TopK, CumSum."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
