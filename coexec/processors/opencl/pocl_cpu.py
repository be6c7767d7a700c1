"""Working around what PoCL's LLVM does not know of processors newer than itself.

PoCL asks LLVM for the name of the host CPU. The wheel's LLVM 14 answers ``generic`` for any CPU it
does not know (AMD's family 26, for one), and clang then refuses that very name: "unknown target
CPU 'generic'" (https://github.com/pocl/pocl/issues/1049). It takes every CPU of AMD's family 25
for a Zen 3, which has no AVX-512: on a Zen 4 PoCL then says that vectors have 16 lanes, as the CPU
does, but compiles for eight; such kernels get lost or abort the process.

PoCL 3.0 has no setting for it, but the function that asks is exported. Where its answer will not
do, its first bytes are replaced in memory by "return this string", with the name of the best CPU
model that LLVM 14 knows and whose instructions this CPU has all of. Nothing on disk changes.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import platform
from collections.abc import Set as AbstractSet
from pathlib import Path

from coexec.base.cpu import cpu_flags

log = logging.getLogger(__name__)

MODELS = (
    ("skylake-avx512", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "clwb", "adx"}),
    ("haswell", {"avx2", "fma", "bmi1", "bmi2", "movbe", "f16c", "abm"}),
    ("x86-64", set[str]()),
)
"""CPU models of LLVM 14, best first, with the flags of ``/proc/cpuinfo`` that each needs."""

MODEST = frozenset({b"znver1", b"znver2", b"znver3"})
"""Models without AVX-512 for which LLVM 14 takes newer CPUs that have it."""


def name_unknown_cpu(library: Path) -> str | None:
    """Make PoCL (its shared library) build for a CPU that its LLVM does not know.

    Acts before the first OpenCL call only. Returns the model chosen, ``None`` if nothing was wrong.
    """
    if platform.machine() != "x86_64":
        return None
    pocl = ctypes.CDLL(str(library))
    ask = getattr(pocl, "pocl_get_llvm_cpu_name", None)
    if ask is None:
        return None
    ask.restype = ctypes.c_char_p
    model = better_model(ask(), cpu_flags())
    if model is None:
        return None
    _return_constant(ctypes.cast(ask, ctypes.c_void_p).value or 0, model.encode())
    log.info("PoCL does not know this CPU; its kernels are built for %s", model)
    return model


def better_model(answer: bytes, flags: AbstractSet[str]) -> str | None:
    """What to build for instead of LLVM's ``answer``, by the CPU's flags; ``None``: it will do."""
    best = next(name for name, needed in MODELS if needed <= flags)
    too_modest = answer in MODEST and best == MODELS[0][0]
    return best if too_modest or answer == b"generic" else None


def _return_constant(function: int, text: bytes) -> None:
    """Overwrite a C function (x86-64) with ``return strdup(text)``: callers free what they get."""
    libc = ctypes.CDLL(None, use_errno=True)
    strdup = ctypes.cast(libc.strdup, ctypes.c_void_p).value or 0
    libc.strdup.restype = ctypes.c_void_p
    kept: int = libc.strdup(text)  # lives as long as the process
    code = (
        b"\x48\xbf"
        + kept.to_bytes(8, "little")  # mov rdi, text
        + b"\x48\xb8"
        + strdup.to_bytes(8, "little")  # mov rax, strdup
        + b"\xff\xe0"  # jmp rax
    )
    page = mmap.PAGESIZE
    start = function // page * page
    length = -(-(function + len(code) - start) // page) * page
    writable = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), writable):
        log.warning("PoCL cannot be told this CPU's name: error %d", ctypes.get_errno())
        return
    ctypes.memmove(function, code, len(code))
    libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_EXEC)
