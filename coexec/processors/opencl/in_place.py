"""Buffers that *are* memory of the host, which copies to and from them by itself.

To a driver a copy is a command like any other: handed over, done by another thread, waited for.
That takes 30 to 50 us of the host's time (measured with two runtimes for CPUs), a quarter of a run
of a network of small kernels. Where nothing is to be waited for, moving the bytes is all there is
to do.

A buffer remembers the last command that uses it. A write is made at once if that is over; a read
when somebody waits for it. Should a command on the buffer be handed over in between, the read
becomes a command in front of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyopencl as cl

from coexec.core.processor import Host
from coexec.core.types import Array

LARGEST = 1 << 20
"""Bytes. Larger tensors are better copied beside the host, which hands kernels over meanwhile."""
Span = tuple[int, int]


@dataclass
class InPlace:
    """A buffer's ``memory`` (bytes), the last command that uses it, and the read to be made."""

    memory: Array
    used: cl.Event | None = None
    reading: InPlaceRead | None = None

    @property
    def idle(self) -> bool:
        """Whether the host may write: nothing that was asked for needs the contents any more."""
        if self.used is not None:
            if self.used.command_execution_status != cl.command_execution_status.COMPLETE:
                return False
            self.used = None
        return self.reading is None

    def write(self, source: Host) -> Span:
        """Copy an array to the memory of an idle buffer; returns when (ns)."""
        start = time.perf_counter_ns()
        self.memory[: source.nbytes] = _bytes_of(source)
        return start, time.perf_counter_ns()

    def read(self, target: Host, enqueue: Callable[[], cl.Event]) -> InPlaceRead:
        """A copy to an array, to be completed; ``enqueue`` has the device make it instead."""
        self.hand_over()
        self.reading = InPlaceRead(self, target, enqueue)
        if self.used is not None:
            self.reading.events.append(self.used)
        return self.reading

    def hand_over(self) -> None:
        """Before a command that uses the buffer: a read that nobody waited for comes first."""
        if self.reading is not None:
            self.reading.hand_over()


@dataclass
class InPlaceRead:
    """A read that is made once its ``events`` are over; ``spans`` then say when (ns)."""

    place: InPlace
    target: Host
    enqueue: Callable[[], cl.Event]
    events: list[cl.Event] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def complete(self) -> None:
        """Copy, if nobody did; what the buffer was used for must be over."""
        if self.place.reading is self:
            start = time.perf_counter_ns()
            _bytes_of(self.target)[:] = self.place.memory[: self.target.nbytes]
            self.spans.append((start, time.perf_counter_ns()))
            self.place.reading = None

    def hand_over(self) -> None:
        """Have the device make the copy, if nobody did."""
        if self.place.reading is self:
            self.place.reading = None
            self.place.used = self.enqueue()
            self.events[:] = [self.place.used]


def _bytes_of(array: Host) -> Array:
    return array.reshape(-1).view(np.uint8)
