"""What a processor and others tell each other of memory of the host that they compute on.

Where a buffer over memory of the host *is* that memory, a flag says that work is done
(:mod:`coexec.processors.opencl.flags`); else buffers are mapped and unmapped. A processor follows
another one by its flag, or by an event that the other's driver has set.
"""

from __future__ import annotations

from functools import cached_property

import pyopencl as cl

from coexec.core.flag import Raised
from coexec.core.processor import Buffer, Host, Ticket
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.flags import Flags, count_processor
from coexec.processors.opencl.mapping import is_host_memory, show_device, show_host
from coexec.processors.opencl.options import DeviceOptions
from coexec.processors.opencl.programs import ProgramCache

Told = tuple[list[cl.Event], Raised | None]
"""Commands that tell others, and the moment at which a flag does."""


class CommonMemory:
    """The part of one processor, whose ``queue`` is in order and computes on ``silicon``."""

    def __init__(
        self,
        queue: cl.CommandQueue,
        programs: ProgramCache,
        options: DeviceOptions,
        silicon: frozenset[str],
    ) -> None:
        self.queue = queue
        self.programs = programs
        self.options = options
        self.silicon = silicon
        # The end of all work so far, as others are told; none once something came after it.
        self._told: Told | None = None
        # The end of all that this one waits for, once something was shared behind it.
        self._reached: cl.Event | None = None
        self._started = False
        count_processor(self, self._driver)

    def went_on(self) -> None:
        """Work was handed over."""
        self._told = self._reached = None

    def share(self, dst: Buffer | Host, src: Buffer | Host) -> Told:
        """What one side wrote is there for the other once the queue comes here."""
        if self._flags is None:
            tell = show_host if isinstance(src, OpenCLBuffer) else show_device
            return tell(self.queue, src if isinstance(src, OpenCLBuffer) else dst), None
        if isinstance(dst, OpenCLBuffer):
            # Nobody waits for what comes in: the memory is the same, and no flag need be raised.
            if self._reached is None:
                self._reached = cl.enqueue_marker(self.queue)
            return [self._reached], None
        return self.tell()

    def tell(self) -> Told:
        """Others are told by the flag once the queue comes here; there has to be one."""
        assert self._flags is not None
        if self._told is None:
            event, moment = self._flags.raised()
            self._told = [event], moment
        return self._told

    def follow(self, ticket: Ticket) -> None:
        """Start what is handed over from now on after a ticket of another processor."""
        self.went_on()
        moment = ticket.raised
        if moment and self._flags and self._flags.can_wait_for(moment):
            self._flags.wait_for(moment)
            self.queue.flush()
            return
        done = cl.UserEvent(self.queue.context)
        cl.enqueue_barrier(self.queue, wait_for=[done])
        self.queue.flush()
        ticket.then(lambda: done.set_status(cl.command_execution_status.COMPLETE))

    def meets(self, other: CommonMemory) -> bool:
        """Whether waiting within a kernel takes nothing from who works for ``other``, or for us."""
        mine, others = self._flags, other._flags
        if mine is None or others is None:
            return False
        first, last = Raised(mine.own, 0), Raised(others.own, 0)
        return mine.can_wait_for(last) and others.can_wait_for(first)

    def check(self) -> None:
        """Whether all that was waited for came.

        Raises:
            ProcessorError: something did not; what was computed since then is wrong.
        """
        if self._started and self._flags:
            self._flags.check()

    @cached_property
    def is_host_memory(self) -> bool:
        """Whether a buffer over memory of the host is that memory, for both at any time."""
        return is_host_memory(self.queue.context, self.queue.device)

    @property
    def by_flags(self) -> bool:
        """Whether flags tell others, and nothing has to be mapped."""
        return self._flags is not None

    @property
    def flags(self) -> Flags | None:
        """The flags that tell others, if they do."""
        return self._flags

    @property
    def _driver(self) -> str:
        return str(self.queue.device.platform.name)

    @cached_property
    def _flags(self) -> Flags | None:
        self._started = True
        if self.options.follow == "event" or not self.is_host_memory:
            return None
        return Flags(self.queue, self.programs, self._driver, self.silicon)
