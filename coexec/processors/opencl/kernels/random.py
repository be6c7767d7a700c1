"""Counter-based random masks."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("random", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
