"""Whether a device multiplies bytes four at a time, found out without risk.

x86 CPUs have an instruction for it (AVX-512 VNNI) that OpenCL C has no name for. PoCL's compiler
knows the builtin, Intel's only LLVM's intrinsic, whose operands changed between LLVM's versions: a
compiler that expects others ends its process. So the first program is compiled in another one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

import pyopencl as cl

from coexec.base.cpu import cpu_flags
from coexec.base.errors import ProcessorError
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.family import KernelCall
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.sources import program_text

INSTRUCTIONS = frozenset({"avx512_vnni", "avx512bw", "avx512vl"})
"""Of ``/proc/cpuinfo``."""
VNNI = "VNNI"
"""The macro of kernels that need them (kernels/byte_dots.cl), and of no others."""
ASKED = f"#define {VNNI} 1\n"
"""In the text of every such program."""
PROBE = KernelCall("integer_conv", "convolve", (), (1,), defines={VNNI: 1, "TILE": 1})
log = logging.getLogger(__name__)


def byte_dots(programs: ProgramCache) -> Literal["none", "vnni"]:
    """How a device multiplies bytes; asks its compiler once, and keeps the answer on disk."""
    is_cpu = bool(programs.device.type & cl.device_type.CPU)
    if not is_cpu or not INSTRUCTIONS.issubset(cpu_flags()):
        return "none"
    if programs.survives(ProgramSource(PROBE.family, program_text(PROBE))):
        return "vnni"
    log.warning("%s: products of bytes are computed in floats", programs.device.name)
    return "none"


def check_dots(programs: ProgramCache, sources: Iterable[ProgramSource]) -> None:
    """Refuse programs that were made for another device's products of bytes (bundles).

    Raises:
        ProcessorError: some need the instruction, and it is not there.
    """
    if any(ASKED in source.text for source in sources) and byte_dots(programs) == "none":
        raise ProcessorError(
            f"{programs.device.name}: the program was made for a CPU that multiplies bytes four at "
            "a time (AVX-512 VNNI); save it again on this device"
        )
