"""Elementwise operators of two or more operands, with broadcasting."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("binary", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
