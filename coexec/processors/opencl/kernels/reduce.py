"""Reductions over axes."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("reduce", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
