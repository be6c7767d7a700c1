"""Where, Clip, PRelu: elementwise choices."""

from __future__ import annotations

from coexec.processors.opencl.family import KernelFamily, Variant, Lowering

FAMILY = KernelFamily("select", (), (Variant("naive", lambda call, facts, params: Lowering(())),))
