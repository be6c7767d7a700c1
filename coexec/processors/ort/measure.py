"""What a provider can do at most, measured through the processor itself in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from coexec.base.bursts import quiet_latency
from coexec.core.machine import Link, Rates
from coexec.core.processor import Buffer, Executable
from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.processors.ort.processor import OrtProcessor

REPEATS = 7
STREAM_BYTES = 64 << 20
SIMULATED_STREAM_BYTES = 1 << 18
LINK_BYTES = 64 << 20
TINY_BYTES = 64
DTYPES = ("float32", "float64", "float16")


def measure(processor: OrtProcessor) -> Rates:
    """GEMM peak by type, bandwidth of an addition, latencies and copies.

    A type that the provider has no product for is left out. A simulated device has a simulation's
    rates: they say how long a run takes here, nothing about the hardware.
    """
    simulated = processor.provider.simulated
    stream = SIMULATED_STREAM_BYTES if simulated else STREAM_BYTES
    tiny = _call("Add", "float32", (1,))
    return Rates(
        peak_gflops=_peaks(processor, processor.provider.measured_side),
        bandwidth_gbps=3 * stream / _least_ns(processor, _call("Add", "float32", (stream // 4,))),
        launch_us=_launch_us(processor, tiny),
        sync_us=_sync_us(processor, tiny),
        links={"write": _link(processor, writing=True), "read": _link(processor, writing=False)},
        driver=processor.describe().driver,
    )


def _peaks(processor: OrtProcessor, side: int) -> dict[str, float]:
    calls = {name: _call("MatMul", name, (side, side)) for name in DTYPES}
    return {
        name: 2 * side**3 / _least_ns(processor, call)
        for name, call in calls.items()
        if processor.supports(call).yes
    }


def _call(op_type: str, dtype: str, shape: tuple[int, ...]) -> OpCall:
    """A call of two operands and a result of the same type."""
    kind = TensorType(shape, np.dtype(dtype))
    return OpCall(op_type, (kind, kind), {}, (kind,), version=21)


def _ready(processor: OrtProcessor, call: OpCall) -> tuple[Executable, list[Buffer]]:
    types = {"a": call.input(0), "b": call.input(1), "c": call.output(0)}
    node = RegionNode(call, ("a", "b"), ("c",))
    executable = processor.compile(Region((node,), ("a", "b"), ("c",), types))
    buffers: list[Buffer] = []
    for kind in types.values():
        buffer = processor.alloc(kind.nbytes)
        processor.wait(processor.copy(buffer, np.ones(kind.shape, kind.dtype), ()))
        buffers.append(buffer)
    return executable, buffers


def _least_ns(processor: OrtProcessor, call: OpCall) -> float:
    """Best of several runs, after one that warms up, by the processor's own clock."""
    executable, buffers = _ready(processor, call)
    runs = [processor.wait(processor.submit(executable, buffers, ())) for _ in range(REPEATS + 1)]
    return min(event.duration_ns for event in runs[1:])


def _launch_us(processor: OrtProcessor, call: OpCall) -> float:
    """The host's share of handing work over."""
    executable, buffers = _ready(processor, call)

    def handed_over() -> float:
        start = time.perf_counter()
        ticket = processor.submit(executable, buffers, ())
        spent = time.perf_counter() - start
        processor.wait(ticket)
        return spent

    return quiet_latency(handed_over) * 1e6


def _sync_us(processor: OrtProcessor, call: OpCall) -> float:
    executable, buffers = _ready(processor, call)

    def done() -> float:
        start = time.perf_counter()
        processor.wait(processor.submit(executable, buffers, ()))
        return time.perf_counter() - start

    return quiet_latency(done) * 1e6


def _link(processor: OrtProcessor, writing: bool) -> Link:
    """Latency of tiny copies in quiet moments, bandwidth of the fastest large one."""
    tiny = quiet_latency(_copy(processor, TINY_BYTES, writing))
    large = _copy(processor, LINK_BYTES, writing)
    large()  # warms up
    least = min(large() for _ in range(REPEATS))
    return Link(latency_us=tiny * 1e6, gbps=LINK_BYTES / (least - tiny) / 1e9)


def _copy(processor: OrtProcessor, nbytes: int, writing: bool) -> Callable[[], float]:
    """Makes a copy, waiting included; seconds."""
    host, buffer = np.ones(nbytes, np.uint8), processor.alloc(nbytes)
    processor.wait(processor.copy(buffer, host, ()))
    return lambda: _timed_copy(processor, buffer, host, writing)


def _timed_copy(processor: OrtProcessor, buffer: Buffer, host: Array, writing: bool) -> float:
    start = time.perf_counter()
    if writing:
        processor.wait(processor.copy(buffer, host, ()))
    else:
        processor.wait(processor.copy(host, buffer, ()))
    return time.perf_counter() - start
