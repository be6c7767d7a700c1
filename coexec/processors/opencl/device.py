"""An OpenCL device at run time: context, queue, buffers, copies, bound launches, timed events."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import pyopencl as cl

from coexec.base.errors import DeviceMemoryError, ProcessorError
from coexec.base.knobs import cache_dir
from coexec.base.pages import page_aligned
from coexec.core.device_memory import DeviceMemory, limit_of
from coexec.core.events import COPY, LAUNCH, MAP, Event
from coexec.core.pages import PageFile, Pages
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    ProcessorSpec,
    Runner,
    Ticket,
    shared,
)
from coexec.core.repeats import Repeating
from coexec.processors.opencl.bound import Bound, BoundRegion
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.clock import clock_offset, timed_queue
from coexec.processors.opencl.common_memory import CommonMemory
from coexec.processors.opencl.describe import facts_of, spec_of
from coexec.processors.opencl.executable import (
    Label,
    OpenCLExecutable,
)
from coexec.processors.opencl.host_copies import before_command, copy_by_host
from coexec.processors.opencl.in_place import LARGEST, InPlace
from coexec.processors.opencl.large_pages import LargePages
from coexec.processors.opencl.mapping import (
    buffer_over,
    read_mapped,
    take_back,
    write_mapped,
)
from coexec.processors.opencl.options import DEFAULT_OPTIONS, DeviceOptions
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.regions import BoundRegions
from coexec.processors.opencl.repeated import OpenCLRepeats, repeated
from coexec.processors.opencl.sequences import SequencePlans
from coexec.processors.opencl.ticket import OpenCLTicket, event_of, parts_of
from coexec.processors.opencl.transfers import can_map, enqueue_copy
from coexec.processors.opencl.waiting import Block, wait_awake, way_to_wait

DEVICE_CLOCK, HOST_CLOCK = "device", "host"
SHARE_READ, SHARE_WRITE = Label("share read"), Label("share write")


class OpenCLDevice(Runner, Repeating):
    """One OpenCL device with one in-order queue that records times.

    ``clock`` says whose times events carry: the device's own or, where it records none, the host's
    around each command; then a detailed run waits for every command by itself.
    """

    chained = True

    def __init__(
        self, name: str, device: cl.Device, options: DeviceOptions = DEFAULT_OPTIONS
    ) -> None:
        self.name = name
        self.device = device
        self.options = options
        self._block = way_to_wait(device, options)
        self.context = cl.Context([device])
        self.queue = timed_queue(self.context)
        self.facts = facts_of(device, options.unit)
        between = self.facts.unit_kind == "cpu" and options.pages == "best"
        self.pages = "between" if between else "beside"
        self.host_memory = bool(device.host_unified_memory)
        on_host = self.host_memory and self.facts.unit_kind == "cpu"
        self._large_pages = LargePages(self.context, wanted=on_host)
        self.programs = ProgramCache(self.context, device)
        self.memory = DeviceMemory(name, limit_of(name, options.memory))
        self._adopted: weakref.WeakSet[OpenCLBuffer] = weakref.WeakSet()
        joins = options.launch == "together" and device.platform.name != "Oclgrind"
        self._regions = BoundRegions(self.queue, self.programs, SequencePlans(self.facts, joins))
        offset = clock_offset(self.queue, self.block)
        self.clock = HOST_CLOCK if offset is None else DEVICE_CLOCK
        self._clock_offset = offset or 0
        self.prompt = self.clock == DEVICE_CLOCK and options.transfer != "map"
        silicon = frozenset(self.describe().resources)
        self._common = CommonMemory(self.queue, self.programs, options, silicon)

    def describe(self) -> ProcessorSpec:
        own = self.options
        spec = spec_of(self.name, self.device, own.cores, own.first, own.unit)
        limit = self.memory.limit_bytes
        return replace(spec, memory_bytes=min(spec.memory_bytes, limit)) if limit else spec

    @property
    def allocated_bytes(self) -> int:
        """Memory in use: buffers, constants, and memory of the host that was adopted."""
        return self.memory.allocated_bytes

    @property
    def peak_bytes(self) -> int:
        """The most memory that ever was in use."""
        return self.memory.peak_bytes

    def alloc(self, nbytes: int) -> OpenCLBuffer:
        self.memory.take(nbytes)
        try:
            memory = cl.Buffer(self.context, cl.mem_flags.READ_WRITE, max(nbytes, 1))
            buffer = OpenCLBuffer(memory, nbytes)
            self._large_pages.wish(buffer)
        except cl.Error as error:
            self.memory.give_back(nbytes)
            raise DeviceMemoryError(
                f"{self.name}: cannot allocate {nbytes} bytes ({error}); use a smaller batch"
            ) from error
        weakref.finalize(buffer, self.memory.give_back, nbytes)
        return buffer

    def alloc_for_host(self, nbytes: int) -> OpenCLBuffer:
        small = 0 < nbytes <= LARGEST and self.options.transfer == "best"
        if not (small and self._common.is_host_memory):
            return self.alloc(nbytes)
        memory = page_aligned(nbytes)
        buffer = self.adopt(memory)
        buffer.in_place = InPlace(memory)
        return buffer

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> OpenCLTicket:
        done = None if after else copy_by_host(self.queue, dst, src)
        if done is not None:
            return done
        if shared(dst, src):
            return self._share(dst, src)
        self._common.went_on()
        take_back(self.queue, [dst] if isinstance(dst, OpenCLBuffer) else [])
        events = _events(after)
        nbytes = src.nbytes
        if nbytes == 0:
            return OpenCLTicket("copy", COPY, [cl.enqueue_marker(self.queue)], (Label("copy"),))
        if self.options.transfer == "map" and can_map(dst, src):
            return self._copy_mapped(dst, src)
        places = before_command((dst, src))
        start = time.perf_counter_ns()
        event = enqueue_copy(self.queue, dst, src, events)
        for place in places:
            place.used = event
        direction = "read" if isinstance(dst, np.ndarray) else "write"
        label = Label(direction, bytes=nbytes)
        spans = self._host_spans(start, event)
        return OpenCLTicket(direction, COPY, [event], (label,), (dst, src), start, spans)

    def alloc_pages(self, nbytes: int) -> Pages:
        """Memory of the host; of a file where that is the device's own."""
        folder = cache_dir() / "pages"
        pages = Pages(nbytes, PageFile(nbytes, folder) if self.host_memory else None)
        if self.pages == "between":
            pages.buffer = buffer_over(self.context, pages.memory)
        return pages

    @cached_property
    def _transfers(self) -> cl.CommandQueue:
        """A queue beside that of kernels."""
        return timed_queue(self.context)

    def sees_host_memory(self) -> bool:
        return self._common.by_flags

    def follow(self, ticket: Ticket) -> None:
        self._common.follow(ticket)

    def meets(self, other: Runner) -> bool:
        return (
            isinstance(other, OpenCLDevice)
            and self.options.kernels == other.options.kernels == "best"
            and self.clock == other.clock == DEVICE_CLOCK
            and self.facts.unit_kind == other.facts.unit_kind == "cpu"
            and self.facts.compute_units == other.facts.compute_units == 1
            and self._common.meets(other._common)
        )

    def adopt(self, memory: Host) -> OpenCLBuffer:
        nbytes = 0 if self._is_part(memory) else memory.nbytes
        self.memory.take(nbytes)
        try:
            buffer = buffer_over(self.context, memory)
        except cl.Error as error:
            self.memory.give_back(nbytes)
            raise ProcessorError(
                f"{self.name}: cannot use {memory.nbytes} bytes of the host ({error})"
            ) from error
        self._adopted.add(buffer)
        weakref.finalize(buffer, self.memory.give_back, nbytes)
        return buffer

    def _is_part(self, memory: Host) -> bool:
        """Whether memory lies in that of a larger buffer, and counts with that."""
        larger = (each.over for each in self._adopted if each.nbytes > memory.nbytes)
        return any(over is not None and np.may_share_memory(over, memory) for over in larger)

    def tell(self) -> OpenCLTicket:
        start = time.perf_counter_ns()
        events, moment = self._common.tell()
        self.queue.flush()
        spans = self._host_spans(start, events[-1])
        label = SHARE_READ
        return OpenCLTicket(label.name, MAP, events, (label,), None, start, spans, moment)

    def _share(self, dst: Buffer | Host, src: Buffer | Host) -> OpenCLTicket:
        if isinstance(dst, np.ndarray) and self._common.by_flags:
            return self.tell()
        start = time.perf_counter_ns()
        events, moment = self._common.share(dst, src)
        self.queue.flush()
        label = SHARE_READ if isinstance(dst, np.ndarray) else SHARE_WRITE
        spans = self._host_spans(start, events[-1])
        return OpenCLTicket(label.name, MAP, events, (label,), (dst, src), start, spans, moment)

    def _copy_mapped(self, dst: Buffer | Host, src: Buffer | Host) -> OpenCLTicket:
        start = time.perf_counter_ns()
        if isinstance(src, OpenCLBuffer):
            name, events = "map read", read_mapped(self.queue, src, dst, self.block)
        else:
            name, events = "map write", write_mapped(self.queue, dst, src, self.block)
        label = Label(name, bytes=src.nbytes)
        spans = self._host_spans(start, events[-1])
        return OpenCLTicket(name, MAP, events, (label,), (dst, src), start, spans)

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> OpenCLTicket:
        assert isinstance(executable, OpenCLExecutable)
        self._common.went_on()
        take_back(self.queue, buffers[len(executable.inputs) :])
        region = self._regions.known(executable, buffers, self.detailed)
        if region is None:
            region = self._bind(executable, buffers, self.detailed)
        elif self.options.bind == "each":
            region.set_arguments()
        preparation = self._regions.preparation(executable)
        if preparation is not None:
            region = preparation.then(region)
        places = before_command(buffers[number] for number in region.in_place)
        try:
            ticket = self._start(region)
        except cl.Error as error:
            raise ProcessorError(f"{self.name}: a kernel could not be launched: {error}") from error
        for place in places:
            place.used = ticket.events[-1]
        if preparation is not None:
            self._regions.prepared(executable)
        return ticket

    def again(
        self, executable: Executable, buffers: Sequence[Buffer]
    ) -> Callable[[], Ticket] | None:
        region = self.bound(executable, buffers)
        if region is None:
            return None
        quick = repeated(self.name, self.queue, region, self._common.went_on)
        noted = partial(self.submit, executable, buffers, ())
        return lambda: noted() if self.detailed else quick()

    def bind(self, executable: Executable, buffers: Sequence[Buffer]) -> None:
        assert isinstance(executable, OpenCLExecutable)
        if self._regions.known(executable, buffers) is None:
            self._bind(executable, buffers, each=False)

    def _bind(
        self, executable: OpenCLExecutable, buffers: Sequence[Buffer], each: bool
    ) -> BoundRegion:
        return self._regions.bind(executable, buffers, self.alloc, lambda: self._transfers, each)

    def bound(self, executable: Executable, buffers: Sequence[Buffer]) -> BoundRegion | None:
        """A region whose steps can be enqueued as they are, once it ran; there are some."""
        region = self._regions.known(executable, buffers)
        if region is None and self._regions.known(executable, buffers, each=True):
            assert isinstance(executable, OpenCLExecutable)
            region = self._bind(executable, buffers, each=False)
        if region is None or not region.steps or self._regions.preparation(executable):
            return None
        self._large_pages.gather(region, partial(self._regions.memory_of, executable, buffers))
        shares = any(buffer.over is not None for buffer in buffers)
        mapped = shares and not self._common.by_flags
        return None if mapped or region.in_place or self.options.bind == "each" else region

    def repeats(self) -> OpenCLRepeats | None:
        flags = self._common.flags
        return None if flags is None else OpenCLRepeats(self, self._common, flags)

    def _start(self, region: BoundRegion) -> OpenCLTicket:
        if self.clock == HOST_CLOCK and self.detailed:
            return self._submit_timed(region)
        events = self._enqueue(region.steps)
        self.queue.flush()
        if not events:
            marker = cl.enqueue_marker(self.queue)
            return OpenCLTicket("empty region", LAUNCH, [marker], (Label("empty region"),))
        return OpenCLTicket(f"{len(region.labels)} kernels", LAUNCH, events, region.labels)

    def _enqueue(self, steps: Sequence[Bound]) -> list[cl.Event]:
        """Start steps; their events, of which only details need more than the first and the last.

        Events that live on cost twice the time of an enqueue on some drivers.
        """
        if self.detailed or len(steps) < 2:
            return [step.enqueue(self.queue) for step in steps]
        first = steps[0].enqueue(self.queue)
        for step in steps[1:-1]:
            step.enqueue(self.queue)
        return [first, steps[-1].enqueue(self.queue)]

    def _submit_timed(self, region: BoundRegion) -> OpenCLTicket:
        """Step after step, each waited for, with times of the host's clock."""
        ticket = OpenCLTicket(f"{len(region.steps)} kernels", LAUNCH, [], region.labels)
        for step in region.steps:
            start = time.perf_counter_ns()
            ticket.events.append(step.enqueue(self.queue))
            ticket.spans += self._host_spans(start, ticket.events[-1])
        if not region.steps:
            ticket.events.append(cl.enqueue_marker(self.queue))
            ticket.labels = (Label("empty region"),)
        return ticket

    def _host_spans(self, start: int, event: cl.Event) -> list[tuple[int, int]]:
        """Time of a command by the host's clock, if that is wanted; waits for it then."""
        if self.clock == DEVICE_CLOCK or not self.detailed:
            return []
        self.block(event)
        return [(start, time.perf_counter_ns())]

    def block(self, event: cl.Event) -> None:
        """Sleep until a command is done, without another core's help if this is a part of a CPU.

        Raises:
            cl.Error: the command failed.
        """
        self._block(self.queue, event)

    def finish(self, ticket: Ticket) -> None:
        self._finish(ticket, self._block)

    def watch(self, ticket: Ticket) -> None:
        self._finish(ticket, wait_awake)

    def _finish(self, ticket: Ticket, block: Block) -> None:
        assert isinstance(ticket, OpenCLTicket)
        try:
            if ticket.events:
                block(self.queue, ticket.events[-1])
        except cl.Error as error:
            raise ProcessorError(f"{self.name}: {ticket.name} failed: {error}") from error
        if ticket.left is not None:
            ticket.left.complete()
        self._common.check()

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, OpenCLTicket)
        self.finish(ticket)
        spans = self._spans(ticket)
        parts: tuple[Event, ...] = ()
        if self.detailed and ticket.kind == LAUNCH and len(spans) == len(ticket.labels):
            parts = parts_of(ticket.labels, spans, self.name)
        total = Label(
            ticket.name,
            flop=sum(label.flop for label in ticket.labels),
            bytes=sum(label.bytes for label in ticket.labels),
        )
        return event_of(total, ticket.kind, self.name, spans[0][0], spans[-1][1], parts)

    def _spans(self, ticket: OpenCLTicket) -> list[tuple[int, int]]:
        """Times of a finished ticket's commands; if nobody wants details, of the first and last."""
        if ticket.spans or self.clock == HOST_CLOCK:
            return ticket.spans or [(ticket.start_ns, time.perf_counter_ns())]
        events = ticket.events if self.detailed else [ticket.events[0], ticket.events[-1]]
        offset = self._clock_offset
        return [(e.profile.start + offset, e.profile.end + offset) for e in events]

    def prepare(self, executable: OpenCLExecutable) -> None:
        """Build the programs of an executable ahead of its first launch."""
        self._regions.build(executable)


def _events(tickets: Sequence[Ticket]) -> list[cl.Event]:
    """Events to wait for; the queue is in order, so its own tickets cost nothing."""
    return [t.events[-1] for t in tickets if isinstance(t, OpenCLTicket) and t.events]
