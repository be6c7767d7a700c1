"""Small outputs of programs on several processors, which the host copies once all have ended.

As a command, a copy takes the thread that hands work over 30 to 80 us, which the processor on its
core begins later; copying a part of a few hundred kilobytes takes less.
"""

from __future__ import annotations

from collections.abc import Mapping

from coexec.base.pages import page_aligned
from coexec.core.here import here_of
from coexec.core.processor import Runner
from coexec.core.program import OUTPUT, Program, Read, Wait
from coexec.core.types import Array

LARGEST = 1 << 18
"""Bytes. Larger ones are copied by their processors, all at once, and while others compute."""


def output_memory(program: Program, runners: Mapping[str, Runner]) -> dict[str, Array]:
    """By buffer, memory (bytes) below small outputs that the host copies by itself.

    None of a program with gates: there the caller looks at outputs while processors go on. Nor what
    goes to other processors, too.
    """
    gates = any(isinstance(step, Wait) and step.gate for step in program.instructions)
    if len(program.processors) < 2 or gates:
        return {}
    reads = [step for step in program.instructions if isinstance(step, Read)]
    read = {step.buffer for step in reads if step.tensor in program.outputs}
    sent = {step.buffer for step in reads if step.tensor not in program.outputs}
    shared = {spec.shares for spec in program.buffers}
    return {
        spec.name: page_aligned(spec.nbytes)
        for spec in program.buffers
        if spec.name in read - sent - shared
        and spec.role == OUTPUT
        and not spec.shares
        and 0 < spec.nbytes <= LARGEST
        and here_of(runners[spec.processor]) is None
        and runners[spec.processor].host_memory
        and runners[spec.processor].sees_host_memory()
    }
