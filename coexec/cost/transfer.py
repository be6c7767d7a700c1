"""What it costs to bring a tensor to a processor and back: a latency that varies, and a bandwidth.

Lowering moves tensors between processors through the host: read there, wait, write here, hand over
the next region. The time of a read includes the wait for it (the synchronisation). The time of a
write includes that of handing over a region and hearing of its end, beyond what the region itself
takes. All are measured after a pause, as in a run where the processor was idle for a moment:
threads that went to sleep have to wake. How long that takes rises with the pause (measured: 30 us
after none, 80 after 0.2 ms, 400 after 5 ms); a plan worth running leaves short ones. The host
computes meanwhile, as a run's does: a core that sleeps as well would wake later still.

Between two processors that compute on memory of the host nothing moves. What is left is measured as
it is: the time from the end of a region on one to the start of the next on the other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coexec.base.pages import page_aligned
from coexec.core.machine import Rates
from coexec.core.processor import Processor, Ticket
from coexec.core.types import OpCall, TensorType
from coexec.cost.distribution import Distribution
from coexec.cost.measured import prepare_call, prepare_region

TINY_BYTES, LARGE_BYTES = 64, 8 << 20
TINY_REPEATS, LARGE_REPEATS = 40, 12
PLACES = 4
"""Between so many places copies of many bytes change, so that no cache has them: in a run, what was
computed since the last copy has driven them out. (Measured: 8 MB from one place at 22 GB/s, those
of a run at 10 to 14.)"""
PAUSE_SECONDS = 0.0002
HANDOVERS, WARM_UP = 40, 4
HANDOVER_ELEMENTS = 1 << 19
"""Of regions that take turns: some 0.5 ms on a core."""
MEASURED, RATES = "measured", "rates"


@dataclass(frozen=True)
class Line:
    """One direction: time = ``latency`` + bytes * ``us_per_byte``."""

    latency: Distribution
    us_per_byte: float


@dataclass(frozen=True)
class HostLink:
    """Both directions between the host and a processor; ``source`` says where they are from.

    ``write`` includes the start of the region that reads what was written.
    """

    write: Line
    read: Line
    source: str = MEASURED


def measure_link(processor: Processor) -> HostLink:
    """Copies of a few bytes and of many, each waited for, and starts, by the host's clock.

    Raises:
        ProcessorError: a tiny region does not compile or run.
    """
    small, near = np.ones(TINY_BYTES, np.uint8), processor.alloc(TINY_BYTES)
    # Ones: of pages of zeros that nobody wrote to, the system has a single one.
    large = [(np.ones(LARGE_BYTES, np.uint8), processor.alloc(LARGE_BYTES)) for _ in range(PLACES)]
    places = itertools.cycle(large)

    def write_large() -> None:
        there, far = next(places)
        processor.wait(processor.copy(far, there, ()))

    def read_large() -> None:
        there, far = next(places)
        processor.wait(processor.copy(there, far, ()))

    write = _line(lambda: processor.wait(processor.copy(near, small, ())), write_large)
    return HostLink(
        write=Line(write.latency.plus(measure_start(processor)), write.us_per_byte),
        read=_line(lambda: processor.wait(processor.copy(small, near, ())), read_large),
    )


def measure_start(processor: Processor) -> Distribution:
    """Time from handing over a tiny region to hearing of its end, less that of the region itself.

    Nothing where the processor has no such region (it does not even add).
    """
    kind = TensorType((TINY_BYTES,), np.dtype(np.float32))
    call = OpCall("Add", (kind, kind), {}, (kind,), version=21)
    if not processor.supports(call).yes:
        return Distribution.exactly(0.0)
    run = prepare_call(processor, call)
    run()
    samples = []
    for _ in range(TINY_REPEATS):
        _pause()
        start = time.perf_counter_ns()
        inside = run().duration_ns
        samples.append(max(time.perf_counter_ns() - start - inside, 0) / 1e3)
    return Distribution.of(samples)


def measure_handover(source: Processor, target: Processor) -> Distribution | None:
    """Time from the end of a region on ``source`` to the start of one that reads its result.

    Both take turns at regions of some size, handed over at once where they follow each other: as in
    a run, one was idle while the other computed, and the host has more to hand over meanwhile.
    Nothing where the two share no memory, or have no such region.

    Raises:
        ProcessorError: a region does not compile or run.
    """
    kind = TensorType((HANDOVER_ELEMENTS,), np.dtype(np.float32))
    call = OpCall("Add", (kind, kind), {}, (kind,), version=21)
    able = all(each.host_memory and each.supports(call).yes for each in (source, target))
    if not able:
        return None
    memory = page_aligned(kind.nbytes)
    memory[:] = 0
    made, read = source.adopt(memory), target.adopt(memory)
    first, second = prepare_region(source, call), prepare_region(target, call)
    turns = []
    for _ in range(HANDOVERS):
        ran = first({"y0": made})
        _after(target, source, source.copy(memory, made, ()))
        target.copy(read, memory, ())
        turns.append((ran, second({"x0": read})))
        _after(source, target, target.copy(memory, read, ()))
    spans = [(source.wait(ran), target.wait(ended)) for ran, ended in turns]
    gaps = [max(ended.start_ns - ran.end_ns, 0) / 1e3 for ran, ended in spans]
    return Distribution.of(gaps[WARM_UP:])


def _after(later: Processor, earlier: Processor, ticket: Ticket) -> None:
    """What is handed to ``later`` from now on starts after ``ticket``."""
    if later.chained and earlier.chained:
        later.follow(ticket)
    else:
        earlier.wait(ticket)


def link_from_rates(rates: Rates) -> HostLink:
    """What a machine's description knows: medians alone; a link that it lacks costs nothing."""

    def line(name: str) -> Line:
        link = rates.links.get(name)
        if link is None:
            return Line(Distribution.exactly(0.0), 0.0)
        return Line(Distribution.exactly(link.latency_us), 1e-3 / link.gbps)

    write, start = line("write"), Distribution.exactly(rates.sync_us)
    return HostLink(Line(write.latency.plus(start), write.us_per_byte), line("read"), RATES)


def between(source: HostLink, target: HostLink) -> Line:
    """From one processor to another: read by the host, then written."""
    return Line(
        source.read.latency.plus(target.write.latency),
        source.read.us_per_byte + target.write.us_per_byte,
    )


def _line(tiny: Callable[[], object], large: Callable[[], object]) -> Line:
    """Time per byte by the fastest copies: at least half of that of many is of their bytes."""
    few = _samples_us(tiny, TINY_REPEATS)
    many = min(_samples_us(large, LARGE_REPEATS)[PLACES:])
    return Line(Distribution.of(few), max(many - min(few), many / 2) / LARGE_BYTES)


def _samples_us(action: Callable[[], object], repeats: int) -> list[float]:
    """Times of several calls, after one that warms up."""
    action()
    samples = []
    for _ in range(repeats):
        _pause()
        start = time.perf_counter_ns()
        action()
        samples.append((time.perf_counter_ns() - start) / 1e3)
    return samples


def _pause() -> None:
    """Let the processor be idle while the host is not."""
    until = time.perf_counter() + PAUSE_SECONDS
    while time.perf_counter() < until:
        pass
