"""Optimizer steps, in ONNX's ai.onnx.preview.training domain where it has a name."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
