"""Work that an OpenCL device is given in each run on the same memory, with all looked up before.

The thread that hands work over takes the time of a core on which a processor of the CPU computes:
what others wait for comes later by every microsecond of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.core.events import LAUNCH
from coexec.core.flag import Flag, Raised
from coexec.core.processor import Buffer, Executable, Ticket
from coexec.core.repeats import Call, Repeats, Submission
from coexec.processors.opencl.bound import BoundRegion, Start
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.common_memory import CommonMemory
from coexec.processors.opencl.executable import Label
from coexec.processors.opencl.flags import Flags
from coexec.processors.opencl.ticket import OpenCLTicket

REPEATED = Label("repeated work")
BEGINNING = 2
"""Kernels that a processor computes while the host gives others theirs: the first may be small."""


class Device(Protocol):
    """What repeated work needs of a device."""

    name: str
    queue: cl.CommandQueue

    def bound(self, executable: Executable, buffers: Sequence[Buffer]) -> BoundRegion | None:
        """A region whose steps can be enqueued as they are, once it ran; there are some."""
        ...

    def watch(self, ticket: Ticket) -> None:
        """Wait awake."""
        ...


class OpenCLRepeats(Repeats):
    """Kernels that are enqueued by calls into the driver; events of the last ones are tokens."""

    token = -2  # the queue is flushed behind it

    def __init__(self, device: Device, common: CommonMemory, flags: Flags) -> None:
        self.device = device
        self.common = common
        self.flags = flags
        self._seen: dict[Flag, OpenCLBuffer] = {}

    def flag(self) -> Flag:
        return self.flags.another()

    def begin(self) -> None:
        self.common.went_on()

    def region(self, executable: Executable, buffers: Sequence[Buffer]) -> Submission | None:
        region = self.device.bound(executable, buffers)
        return None if region is None else self._flushed(*region.starters(self.device.queue))

    def raising(self, flag: Flag, number: int) -> Submission:
        return self._flushed(self.flags.raiser(self._buffer(flag), number))

    def following(self, moment: Raised) -> Submission:
        return self._flushed(self.flags.waiter(self._buffer(moment.flag), moment.number))

    def meeting(self, own: Raised, other: Raised) -> Submission:
        buffers = self._buffer(own.flag), self._buffer(other.flag)
        return self._flushed(self.flags.meeter(*buffers, own.number, other.number))

    def parted(self, region: Submission) -> tuple[Submission, Submission]:
        *starts, flush = region
        if len(starts) <= BEGINNING:
            return region, ()
        return (*starts[:BEGINNING], flush), (*starts[BEGINNING:], flush)

    def may_follow(self, flag: Flag) -> bool:
        return self.flags.can_wait_for(Raised(flag, 0))

    def watching(self, token: Callable[[], object]) -> Call:
        return lambda: self.device.watch(self.ticket(token()))

    def ticket(self, token: object) -> OpenCLTicket:
        assert isinstance(token, cl.Event)
        return OpenCLTicket(REPEATED.name, LAUNCH, [token], (REPEATED,))

    def _buffer(self, flag: Flag) -> OpenCLBuffer:
        if flag not in self._seen:
            self._seen[flag] = self.flags.buffer(flag)
        return self._seen[flag]

    def _flushed(self, *starts: Start) -> Submission:
        return (*starts, self.device.queue.flush)


def repeated(
    owner: str, queue: cl.CommandQueue, region: BoundRegion, went_on: Callable[[], None]
) -> Callable[[], OpenCLTicket]:
    """What starts the steps of a region of ``owner``, after ``went_on``; there are some.

    Its tickets have the events of the first and the last step.
    """
    starters = region.starters(queue)
    first, middle, last = starters[0], starters[1:-1], starters[-1]
    alone = len(starters) == 1
    name, labels, flush = f"{len(region.labels)} kernels", region.labels, queue.flush

    def submit() -> OpenCLTicket:
        went_on()
        try:
            events = [first()]
            for start in middle:
                start()
            if not alone:
                events.append(last())
            flush()
        except cl.Error as error:
            raise ProcessorError(f"{owner}: a kernel could not be launched: {error}") from error
        return OpenCLTicket(name, LAUNCH, events, labels)

    return submit
