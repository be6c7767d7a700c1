"""Sequences of kernels bound to memory: launches of many, or of each kernel for its own times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import pyopencl as cl

from coexec.core.types import Array
from coexec.processors.opencl.bound import BoundKernel
from coexec.processors.opencl.executable import Slot
from coexec.processors.opencl.sequence import ENTRY, counters_of
from coexec.processors.opencl.sequences import Launch, Sequences

Resolve = Callable[[Slot], cl.Buffer]


class SequenceBinder:
    """Binds the launches of one region; ``block`` gives the memory that a block of slots lies in.

    Tables and counters are a part of the code: like programs, they count as no memory in use.
    """

    def __init__(
        self,
        sequences: Sequences,
        programs: Sequence[cl.Program],
        block: Resolve,
        device: cl.Device,
    ) -> None:
        self._sequences = sequences
        self._programs = programs
        self._block = block
        self._size = (device.max_compute_units,)

    def bind(self, launch: Launch, each: bool) -> list[BoundKernel]:
        """One launch of all its kernels, or one for ``each``."""
        table = self._memory(launch.calls.table)
        if each:
            return [self._bound(launch, table, start, 1) for start in launch.calls.starts]
        return [self._bound(launch, table, 0, launch.count)]

    def _bound(self, launch: Launch, table: cl.Buffer, start: int, count: int) -> BoundKernel:
        kernel = cl.Kernel(self._programs[launch.program], ENTRY)
        blocks = [self._block(slot) for slot in launch.calls.blocks]
        unused = self._sequences.programs[launch.program].places - len(blocks)
        memory = (self._counters, *blocks, *[table] * unused)
        kernel.set_arg_types([None, np.int32, np.int32, *[None] * len(memory)])
        bound = BoundKernel(kernel, (table, start, count, *memory), self._size, (1,))
        bound.set_arguments()
        return bound

    @cached_property
    def _counters(self) -> cl.Buffer:
        """For the longest launch: those of one queue come one after another."""
        longest = max(launch.count for launch in self._sequences.launches)
        return self._memory(counters_of(longest))

    def _memory(self, numbers: Array) -> cl.Buffer:
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self._programs[0].context, flags, hostbuf=numbers)
