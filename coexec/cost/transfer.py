"""What it costs to bring a tensor to a processor and back: a latency that varies, and a bandwidth.

Lowering moves tensors between processors through the host: read there, wait, write here. The time
of a read includes the wait for it (the synchronisation); the write is waited for too, as the reader
behind it has to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from coexec.core.machine import Rates
from coexec.core.processor import Processor
from coexec.cost.distribution import Distribution

TINY_BYTES, LARGE_BYTES = 64, 8 << 20
TINY_REPEATS, LARGE_REPEATS = 60, 7
MEASURED, RATES = "measured", "rates"


@dataclass(frozen=True)
class Line:
    """One direction: time = ``latency`` + bytes * ``us_per_byte``."""

    latency: Distribution
    us_per_byte: float


@dataclass(frozen=True)
class HostLink:
    """Both directions between the host and a processor; ``source`` says where they are from."""

    write: Line
    read: Line
    source: str = MEASURED


def measure_link(processor: Processor) -> HostLink:
    """Copies of a few bytes and of many, each waited for, by the host's clock."""
    small, large = np.zeros(TINY_BYTES, np.uint8), np.zeros(LARGE_BYTES, np.uint8)
    near, far = processor.alloc(small.nbytes), processor.alloc(large.nbytes)
    return HostLink(
        write=_line(
            lambda: processor.wait(processor.copy(near, small, ())),
            lambda: processor.wait(processor.copy(far, large, ())),
        ),
        read=_line(
            lambda: processor.wait(processor.copy(small, near, ())),
            lambda: processor.wait(processor.copy(large, far, ())),
        ),
    )


def link_from_rates(rates: Rates) -> HostLink:
    """What a machine description knows: medians without spread, no link as one of no cost."""

    def line(name: str) -> Line:
        link = rates.links.get(name)
        if link is None:
            return Line(Distribution.exactly(rates.sync_us), 0.0)
        return Line(Distribution.exactly(link.latency_us), 1e-3 / link.gbps)

    return HostLink(line("write"), line("read"), RATES)


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
        start = time.perf_counter_ns()
        action()
        samples.append((time.perf_counter_ns() - start) / 1e3)
    return samples
