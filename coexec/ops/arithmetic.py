"""Arithmetic with broadcasting: Add, Sub, Mul, Div, Pow, Min, Max, Mod, Sum, Mean."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
