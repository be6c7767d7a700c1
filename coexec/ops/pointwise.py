"""Pointwise mathematics of one operand: Neg, Abs, Sqrt, Exp, Log, Sin, Floor, ..."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
