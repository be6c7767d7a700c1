"""What it costs to bring a tensor to a processor and back: a latency that varies, and a bandwidth.

Lowering moves tensors between processors through the host: read there, wait, write here, hand over
the next region. The time of a read includes the wait for it (the synchronisation). The time of a
write includes that of handing over a region and hearing of its end, beyond what the region itself
takes. All are measured after a pause, as in a run where the processor was idle meanwhile: threads
that went to sleep have to wake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from coexec.core.machine import Rates
from coexec.core.processor import Processor
from coexec.core.types import OpCall, TensorType
from coexec.cost.distribution import Distribution
from coexec.cost.measured import prepare_call

TINY_BYTES, LARGE_BYTES = 64, 8 << 20
TINY_REPEATS, LARGE_REPEATS = 40, 7
PAUSE_SECONDS = 0.002
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
    small, large = np.zeros(TINY_BYTES, np.uint8), np.zeros(LARGE_BYTES, np.uint8)
    near, far = processor.alloc(small.nbytes), processor.alloc(large.nbytes)
    write = _line(
        lambda: processor.wait(processor.copy(near, small, ())),
        lambda: processor.wait(processor.copy(far, large, ())),
    )
    return HostLink(
        write=Line(write.latency.plus(measure_start(processor)), write.us_per_byte),
        read=_line(
            lambda: processor.wait(processor.copy(small, near, ())),
            lambda: processor.wait(processor.copy(large, far, ())),
        ),
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
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter_ns()
        inside = run().duration_ns
        samples.append(max(time.perf_counter_ns() - start - inside, 0) / 1e3)
    return Distribution.of(samples)


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
    latency = Distribution.of(_samples_us(tiny, TINY_REPEATS))
    many = median(_samples_us(large, LARGE_REPEATS))
    return Line(latency, max(many - latency.median_us, 0.0) / LARGE_BYTES)


def _samples_us(action: Callable[[], object], repeats: int) -> list[float]:
    """Times of several calls, after one that warms up."""
    action()
    samples = []
    for _ in range(repeats):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter_ns()
        action()
        samples.append((time.perf_counter_ns() - start) / 1e3)
    return samples
