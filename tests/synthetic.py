"""A processor whose every cost is chosen, on a virtual clock that the executor reads too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from coexec.core.events import COPY, DISPATCH, HOST, LAUNCH, LAYOUT, MAP, RUN, SYNC, Event, Trace
from coexec.core.machine import Link, Rates
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    ProcessorSpec,
    Runner,
    Ticket,
)
from coexec.core.program import INPUT, OUTPUT, BufferSpec, Launch, Program, Read, Wait, Write
from coexec.core.types import TensorType
from coexec.runtime import executor as executor_module
from coexec.runtime import run as run_module
from coexec.runtime.executor import Executor

TRACK = "synthetic"
US = 1000
ELEMENTS = 250_000
RATES = Rates(
    peak_gflops={"float32": 100.0, "float16": 200.0},
    bandwidth_gbps=10.0,
    launch_us=5.0,
    sync_us=20.0,
    links={"write": Link(50.0, 5.0), "read": Link(50.0, 5.0), "map": Link(50.0, 5.0)},
)


@dataclass
class VirtualClock:
    """Stands in for the module ``time`` in the executor."""

    now: int = 1_000_000

    def perf_counter_ns(self) -> int:
        return self.now


@dataclass(frozen=True)
class Costs:
    """What is injected, in nanoseconds (``gbps``: bytes per nanosecond)."""

    compute: int = 3000 * US
    bandwidth: int = 2000 * US
    layout: int = 500 * US
    latency: int = 300 * US
    gbps: float = 5.0
    map: int = 0
    start_copy: int = 0
    launch: int = 700 * US
    wake: int = 400 * US
    host: int = 600 * US


@dataclass(frozen=True)
class Done(Ticket):
    event: Event


class SyntheticBuffer(Buffer):
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


@dataclass
class SyntheticRunner(Runner):
    """In order, asynchronous: the host hands over, the device works later, waiting wakes late."""

    clock: VirtualClock
    costs: Costs
    free: int = 0
    detailed: bool = False
    seen: list[Event] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(TRACK, "gpu", "none", compute_units=4)

    def alloc(self, nbytes: int) -> Buffer:
        return SyntheticBuffer(nbytes)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Done:
        name = "read" if isinstance(dst, np.ndarray) else "write"
        kind, duration = COPY, self.costs.latency + round(src.nbytes / self.costs.gbps)
        if self.costs.map:
            kind, duration = MAP, self.costs.map
        self.clock.now += self.costs.start_copy
        start, end = self._occupy(duration)
        return Done(Event(name, kind, TRACK, start, end, bytes=src.nbytes))

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Done:
        self.clock.now += self.costs.launch
        costs = self.costs
        work = 100 * costs.compute
        parts = (
            self._kernel("pack", LAYOUT, costs.layout, 0, 1000),
            self._kernel("conv", LAUNCH, costs.compute, work, 1000),
            self._kernel("relu", LAUNCH, costs.bandwidth, 10, 10 * costs.bandwidth),
        )
        total = Event("3", LAUNCH, TRACK, parts[0].start_ns, parts[-1].end_ns, parts=parts)
        return Done(total)

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, Done)
        if self.clock.now < ticket.event.end_ns:
            self.clock.now = ticket.event.end_ns + self.costs.wake
        return ticket.event

    def _kernel(self, name: str, kind: str, duration: int, flop: int, moved: int) -> Event:
        start, end = self._occupy(duration)
        source = name
        return Event(
            name,
            kind,
            TRACK,
            start,
            end,
            flop,
            moved,
            f"{name.title()}.kernel",
            "forward",
            source=source,
            dtype="float32",
        )

    def _occupy(self, duration: int) -> tuple[int, int]:
        start = max(self.clock.now, self.free)
        self.free = start + duration
        return start, self.free


def synthetic_trace(monkeypatch: pytest.MonkeyPatch, costs: Costs) -> Trace:
    """One run of write, launch, read, wait with something else on the host at the end."""
    clock = VirtualClock()
    monkeypatch.setattr(executor_module, "time", clock)
    monkeypatch.setattr(run_module, "time", clock)
    kind = TensorType((ELEMENTS,), np.dtype(np.float32))
    executable = Executable(TRACK, ("x",), ("y",), 0, 0)
    program = Program(
        instructions=(
            Write("x", "x@"),
            Launch(0, ("x@", "y@")),
            Read("y", "y@"),
            Wait(gate=True),
        ),
        executables=(executable,),
        buffers=(
            BufferSpec("x@", TRACK, kind.nbytes, INPUT),
            BufferSpec("y@", TRACK, kind.nbytes, OUTPUT),
        ),
        inputs=("x",),
        outputs=("y",),
        state=(),
        types={"x": kind, "y": kind},
    )
    runner = SyntheticRunner(clock, costs)

    def think(_host: object) -> None:
        clock.now += costs.host

    trace = Trace()
    feeds = {"x": np.zeros(kind.shape, np.float32)}
    Executor(program, {TRACK: runner}).run(feeds, gate=think, trace=trace)
    return trace


def kernel(
    name: str, start_us: float, us: float, flop: int = 0, moved: int = 0, **changes: object
) -> Event:
    """A kernel event; ``changes`` replace fields."""
    event = Event(
        name,
        LAUNCH,
        TRACK,
        round(start_us * US),
        round((start_us + us) * US),
        flop,
        moved,
        f"{name}.kernel",
        "forward",
        source=name,
        dtype="float32",
    )
    return replace(event, **changes)  # type: ignore[arg-type]


def copy(start_us: float, us: float, nbytes: int, track: str = TRACK) -> Event:
    """A copy from the host."""
    return Event("write", COPY, track, round(start_us * US), round((start_us + us) * US), 0, nbytes)


def host(kind: str, start_us: float, us: float) -> Event:
    """Something on the host's track."""
    assert kind in (DISPATCH, SYNC, RUN)
    return Event(kind, kind, HOST, round(start_us * US), round((start_us + us) * US))
