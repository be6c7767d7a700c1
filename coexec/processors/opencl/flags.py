"""How an OpenCL processor follows another one by its flag, without any thread of the host.

Both compute on the same memory of the host, where each processor has a number
(:mod:`coexec.core.flag`). Work that another one waits for ends with a kernel that raises it; the
queue of who waits goes on behind a kernel that reads it until it is high enough.

The kernel that waits keeps a core busy, and perhaps all threads of its driver: processors that
share silicon or a driver wait by events, and so do those whose drivers have several processors.
"""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.core.flag import Flag, Raised, flag_page, signed
from coexec.core.types import Array
from coexec.processors.opencl.bound import BoundKernel, Start
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.mapping import buffer_over
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.sources import kernel_source

RAISE, AWAIT, MEET = "raise_flag", "await_flag", "raise_and_await"

_processors: Counter[str] = Counter()
"""How many processors of each driver there are."""


def count_processor(owner: object, driver: str) -> None:
    """Note that a driver has one more processor, for as long as ``owner`` lives."""
    _processors[driver] += 1
    weakref.finalize(owner, _processors.subtract, [driver])


class Flags:
    """The flag of one processor, and those of others that it waits for.

    ``queue`` is in order; buffers over memory of the host are that memory (``is_host_memory``).
    """

    def __init__(
        self, queue: cl.CommandQueue, programs: ProgramCache, driver: str, silicon: frozenset[str]
    ) -> None:
        self.queue = queue
        self.own = Flag(flag_page(), driver, silicon)
        self.late = flag_page()
        self._count = 0
        (self._program,) = programs.build((ProgramSource("flags", kernel_source("flags")),))
        self._raise = self._bound(RAISE, self.own.memory)
        self._await: dict[Flag, _Bound] = {}

    def raised(self) -> tuple[cl.Event, Raised]:
        """Tell others once all work so far is done."""
        self._count += 1
        return self._raise.enqueue(self.queue, self._count), Raised(self.own, self._count)

    def another(self) -> Flag:
        """One more flag of this processor, for work that counts by itself."""
        return Flag(flag_page(), self.own.driver, self.own.silicon)

    def buffer(self, flag: Flag) -> OpenCLBuffer:
        """A flag's memory as kernels see it; kernels do not keep it alive."""
        return buffer_over(self.queue.context, flag.memory)

    def raiser(self, flag: OpenCLBuffer, number: int) -> Start:
        """What raises a flag to a number once all work so far is done, the same each time."""
        return self._over(RAISE, flag).starter(self.queue, number)

    def waiter(self, flag: OpenCLBuffer, number: int) -> Start:
        """What starts all later work after a flag of another processor has come to a number."""
        return self._over(AWAIT, flag, self._late).starter(self.queue, number)

    def meeter(self, own: OpenCLBuffer, flag: OpenCLBuffer, number: int, other: int) -> Start:
        """What raises its ``own`` flag to a number, then waits for another one to come to one."""
        return self._over(MEET, own, flag, self._late).starter(self.queue, number, other)

    def can_wait_for(self, moment: Raised) -> bool:
        """Whether waiting takes nothing from whoever is to bring a moment about."""
        flag, mine = moment.flag, self.own
        apart = mine.silicon.isdisjoint(flag.silicon) and mine.driver != flag.driver
        # A driver that is not counted has a thread for each of its processors.
        return apart and _processors[mine.driver] == 1 and _processors.get(flag.driver, 1) == 1

    def wait_for(self, moment: Raised) -> None:
        """Start what is handed over from now on after a moment of another processor."""
        flag = moment.flag
        if flag not in self._await:
            self._await[flag] = self._bound(AWAIT, flag.memory, self.late)
        self._await[flag].enqueue(self.queue, moment.number)

    def check(self) -> None:
        """Whether all that was waited for came.

        Raises:
            ProcessorError: something did not; what was computed since then is wrong.
        """
        if self.late[0]:
            self.late[:] = 0
            raise ProcessorError(
                f"{self.own.driver}: another processor did not come to an end in a minute; "
                "with the option follow=event it is waited for without a limit"
            )

    @cached_property
    def _late(self) -> OpenCLBuffer:
        return buffer_over(self.queue.context, self.late)

    def _bound(self, entry: str, *pages: Array) -> _Bound:
        return self._over(entry, *(buffer_over(self.queue.context, page) for page in pages))

    def _over(self, entry: str, *buffers: OpenCLBuffer) -> _Bound:
        kernel = cl.Kernel(self._program, entry)
        numbers = 2 if entry == MEET else 1
        kernel.set_arg_types([*(None for _ in buffers), *[np.int32] * numbers])
        return _Bound(kernel, buffers, tuple(buffer.memory for buffer in buffers))


@dataclass(frozen=True)
class _Bound:
    """A kernel on flags; ``buffers`` keep their memory, which is ``memories``."""

    kernel: cl.Kernel
    buffers: tuple[OpenCLBuffer, ...]
    memories: tuple[cl.Buffer, ...]

    def enqueue(self, queue: cl.CommandQueue, number: int) -> cl.Event:
        """Start it for a number, which it sees as 32 bits."""
        self.kernel.set_args(*self.memories, signed(number))
        return cl.enqueue_nd_range_kernel(queue, self.kernel, (1,), (1,))

    def starter(self, queue: cl.CommandQueue, *numbers: int) -> Start:
        """What starts it for these numbers; the kernel is for no others then."""
        self.kernel.set_args(*self.memories, *map(signed, numbers))
        bound = BoundKernel(self.kernel, (*self.memories, *numbers), (1,), (1,))
        return bound.starter(queue)
