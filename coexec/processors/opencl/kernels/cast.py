"""Conversions of element type."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("cast", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
