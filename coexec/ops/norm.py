"""Batch, layer, group, instance, RMS and local response normalisation."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
