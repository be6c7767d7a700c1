"""Strided moves: Transpose, Slice, Concat, Pad, ..."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("movement", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
