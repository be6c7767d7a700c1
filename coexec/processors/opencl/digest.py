"""A digest of what a call is compiled to: program texts, arguments and sizes, without names."""

from __future__ import annotations

from coexec.base.sources import text_digest
from coexec.core.types import OpCall, Region
from coexec.processors.opencl.choose import Chooser
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import CopyStep, KernelStep, Step
from coexec.processors.opencl.family import DeviceFacts


def code_digest(call: OpCall, facts: DeviceFacts, choose: Chooser, fusing: bool) -> str:
    """Changes with kernels, their geometry, the variant chosen and its tuned values.

    Nothing is built: this takes a millisecond, the compiler of the driver is not asked.
    """
    executable = compile_region(Region.alone(call), facts, "", choose, fusing)
    steps = [_told(step) for step in (*executable.preparation, *executable.steps)]
    return text_digest("\n".join([repr(steps), *(source.text for source in executable.programs)]))


def _told(step: Step) -> tuple[object, ...]:
    if isinstance(step, KernelStep):
        return step.program, step.entry, step.args, step.global_size, step.local_size
    if isinstance(step, CopyStep):
        return step.dst, step.src, step.nbytes
    return step.direction, step.page, step.nbytes, step.tensor
