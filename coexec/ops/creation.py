"""Operators that make tensors out of shapes and numbers: Range, Shape, ConstantOfShape, ..."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
