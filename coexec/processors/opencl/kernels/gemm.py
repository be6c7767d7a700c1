"""Matrix products: Gemm, MatMul."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("gemm", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
