"""Gather, Scatter, OneHot, TopK, CumSum, ArgMax."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("index", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
