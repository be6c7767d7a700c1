"""A processor on top of an execution provider of ONNX Runtime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coexec.base.array_parts import copy_bytes
from coexec.base.cores import Core, physical_cores, pin_this_thread, resources_of
from coexec.base.errors import ProcessorError
from coexec.core.events import COPY, MAP, Event
from coexec.core.here import WorksHere
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    Processor,
    ProcessorSpec,
    Support,
    Ticket,
    shared,
)
from coexec.core.types import OpCall, Region
from coexec.processors.ort.buffer import OrtBuffer, memory_of, own
from coexec.processors.ort.compile import compile_region, layers_in_floats, on_bytes
from coexec.processors.ort.executable import OrtExecutable
from coexec.processors.ort.failures import failure
from coexec.processors.ort.flags import STORES_IN_ORDER, OrtFlags
from coexec.processors.ort.here import OrtHere
from coexec.processors.ort.on_bytes import ON_BYTES, share_on_bytes
from coexec.processors.ort.options import DEFAULT_OPTIONS, OrtOptions
from coexec.processors.ort.providers import Provider
from coexec.processors.ort.support import SupportOracle
from coexec.processors.ort.worker import Job, Worker

CPU = "ort:cpu"
"""The provider that computes on cores of this host."""


class OrtProcessor(Processor, WorksHere):
    """Sessions of one provider, run on one thread in the order of submission.

    Buffers are host memory that sessions read and write in place. Work is handed to the thread and
    ``submit`` returns at once; ``after`` needs nothing more, since the order of submission is kept.
    On the CPU, ``here`` does the same on the thread of its caller.
    """

    host_memory = True
    chained = True
    threaded = True
    prompt = True

    def __init__(self, provider: Provider, options: OrtOptions = DEFAULT_OPTIONS) -> None:
        self.provider = provider
        self.options = options
        self.name = f"{provider.name}{options}"
        self.cores = _chosen(options, physical_cores())
        self.threads = options.thread_count(self.cores)
        self.oracle = SupportOracle(provider)
        self.worker = Worker(self.name, self._prepare_thread)
        self.flags = self._own_flags()
        if provider.name == CPU:
            cores = self.cores if options.cores else ()
            self.here = OrtHere(self, cores, self._own_flags(), self.worker.settle)

    def describe(self) -> ProcessorSpec:
        return spec_of(self.provider, self.options)

    def supports(self, call: OpCall) -> Support:
        return self.oracle.supports(call)

    def fused(self, region: Region) -> Mapping[str, OpCall | None]:
        return on_bytes(region, self.provider)

    def fused_share(self, made: OpCall, share: OpCall) -> OpCall | None:
        return share_on_bytes(made, share) if made.domain == ON_BYTES else None

    def in_floats(self, region: Region, layers: Mapping[str, str]) -> Mapping[str, str]:
        return layers_in_floats(region, layers, self.oracle, self.provider)

    def code_of(self, call: OpCall) -> str:
        return self.oracle.code_of(call)

    def compile(self, region: Region) -> Executable:
        # On the worker: a session's own threads inherit the cores of the thread that makes it.
        return self.worker.call(
            lambda: compile_region(region, self.oracle, self.provider, self.name, self.threads)
        )

    def alloc(self, nbytes: int) -> OrtBuffer:
        return OrtBuffer(nbytes)

    def follow(self, ticket: Ticket) -> None:
        moment, flags = ticket.raised, self.flags
        if moment and flags and flags.can_wait_for(moment):
            self.worker.hand_over(lambda: flags.wait_for(moment))
            return
        done = threading.Event()
        self.worker.hand_over(done.wait)
        ticket.then(done.set)

    def adopt(self, memory: Host) -> OrtBuffer:
        return OrtBuffer(memory.nbytes, memory)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Job:
        direction = "read" if isinstance(dst, np.ndarray) else "write"
        if shared(dst, src):
            job = self.worker.hand_over(lambda: self._shared(direction))
            return self._raising(job) if direction == "read" else job
        target, source = memory_of(dst), memory_of(src)

        def work() -> Callable[[], Event]:
            start = time.perf_counter_ns()
            copy_bytes(target, source)
            end = time.perf_counter_ns()
            return lambda: Event(direction, COPY, self.name, start, end, bytes=source.nbytes)

        return self.worker.hand_over(work)

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Job:
        assert isinstance(executable, OrtExecutable)
        bound = [own(buffer) for buffer in buffers]
        return self.worker.hand_over(_guarded(executable, bound, self.name))

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, Job)
        happened = self.worker.wait(ticket)
        assert callable(happened)
        event = happened()
        assert isinstance(event, Event)
        return event

    def finish(self, ticket: Ticket) -> None:
        assert isinstance(ticket, Job)
        self.worker.wait(ticket)

    def _own_flags(self) -> OrtFlags | None:
        """A flag, where a thread computes here and tells others in order of what it did."""
        tells = self.provider.name == CPU and STORES_IN_ORDER
        return OrtFlags(frozenset(self.describe().resources)) if tells else None

    def _raising(self, job: Job) -> Job:
        """A job whose end a flag tells to others, whether it fails or not."""
        flags = self.flags
        if flags is not None:
            job.raised = moment = flags.next_moment()
            job.then(lambda: flags.reach(moment))
        return job

    def _shared(self, direction: str) -> Callable[[], Event]:
        """All that a copy within shared memory is: everything before it is done."""
        now = time.perf_counter_ns()
        return lambda: Event(f"share {direction}", MAP, self.name, now, now)

    def _prepare_thread(self) -> None:
        if self.options.cores:
            pin_this_thread(self.cores)


def spec_of(provider: Provider, options: OrtOptions) -> ProcessorSpec:
    """What a processor of this provider is. Its resources are cores of this host, or itself."""
    available = physical_cores()
    kind = provider.unit_kind()
    on_host = kind == "cpu" or provider.simulated
    return ProcessorSpec(
        name=f"{provider.name}{options}",
        kind=kind,
        device=provider.device,
        driver=provider.version(),
        compute_units=options.thread_count(_chosen(options, available)) if on_host else 1,
        features={"fp16": True, "fp64": kind == "cpu", "images": False, "svm": True},
        resources=resources_of(options.cores or None) if on_host else (provider.name,),
    )


def _chosen(options: OrtOptions, available: tuple[Core, ...]) -> tuple[Core, ...]:
    return tuple(available[i] for i in options.cores) if options.cores else available


def _guarded(
    executable: OrtExecutable, buffers: Sequence[OrtBuffer], name: str
) -> Callable[[], Callable[[], Event]]:
    def work() -> Callable[[], Event]:
        try:
            return executable.run(buffers, name)
        except Exception as error:  # pybind classes without a common base but Exception
            raise ProcessorError(f"{name}: {failure(error)}") from error

    return work
