"""Counter-based random masks."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Lowering, Variant

FAMILY = KernelFamily("random", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
