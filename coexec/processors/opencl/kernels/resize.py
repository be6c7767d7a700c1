"""Resize."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Lowering, Variant

FAMILY = KernelFamily("resize", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
