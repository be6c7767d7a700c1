"""What an OpenCL device can do at most, measured in a few seconds: the roofs that profiles draw.

All times are the host's around enqueue and wait, of work long enough for the wait not to count, or
of nothing but the wait where that is the question. Peaks and bandwidth are limits: the best of
several runs counts, so that other work on the machine lowers them less. Latencies are those of
quiet moments (:mod:`coexec.base.bursts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyopencl as cl

from coexec.base.bursts import quiet_latency
from coexec.core.machine import Link, Rates
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.sources import kernel_source

CHAINS = 10
WIDTHS = (16, 8, 4, 1)
"""Vector widths tried: a compiler that does not vectorise across work-items wants vectors as long
as the registers, and ten of them must fit there; one that does (and every GPU) wants none. The
fastest counts."""
C_TYPES = {"float32": "float", "float16": "half", "float64": "double"}
PRAGMAS = {
    "float16": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n",
    "float64": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n",
}
STREAMS = {"stream_lines": 16, "stream_runs": 1024}
"""Streaming kernels with the bytes of each array that one work-item covers."""
WORK_ITEMS_PER_UNIT = 4096
GROUP = 64
ENOUGH_MS = 10.0
"""Duration of one timed launch: far above the launch latency of any device."""
REPEATS = 25
"""For limits: spread over a quarter of a second, so that one of them runs undisturbed."""
TINY_BYTES = 64
LARGEST_BYTES = 128 << 20
BURST = 100
ZERO_COPY_GBPS = 1e5
"""Bandwidth of a link over which nothing moves: mapping memory that both sides share."""

Action = Callable[[], object]


def measure(device: OpenCLDevice) -> Rates:
    """Peaks, bandwidth, latencies and links of ``device``; takes a few seconds.

    Raises:
        ProcessorError: a kernel of ``peak.cl`` does not build.
    """
    programs = {name: _programs(device, name) for name in _dtypes(device)}
    plain = programs["float32"][WIDTHS[0]]
    return Rates(
        peak_gflops={name: _peak(device, name, variants) for name, variants in programs.items()},
        bandwidth_gbps=_bandwidth(device, plain),
        launch_us=_launch_us(device, plain),
        sync_us=_sync_us(device, plain),
        links=_links(device),
        driver=device.describe().driver,
    )


def _dtypes(device: OpenCLDevice) -> list[str]:
    optional = {"float16": device.facts.fp16, "float64": device.facts.fp64}
    return ["float32", *(name for name, there in optional.items() if there)]


def _programs(device: OpenCLDevice, dtype: str) -> dict[int, cl.Program]:
    """One program per vector width."""
    texts = {
        width: f"{PRAGMAS.get(dtype, '')}#define T {C_TYPES[dtype]}\n#define WIDTH {width}\n"
        + kernel_source("peak")
        for width in WIDTHS
    }
    sources = tuple(ProgramSource("peak", text) for text in texts.values())
    return dict(zip(texts, device.programs.build(sources), strict=True))


def _peak(device: OpenCLDevice, dtype: str, programs: dict[int, cl.Program]) -> float:
    """GFLOP/s of independent multiply-adds, of the better vector width."""
    return max(_peak_of(device, dtype, width, program) for width, program in programs.items())


def _peak_of(device: OpenCLDevice, dtype: str, width: int, program: cl.Program) -> float:
    items = device.facts.compute_units * WORK_ITEMS_PER_UNIT
    out = device.alloc(items * np.dtype(dtype).itemsize)
    kernel = cl.Kernel(program, "peak")

    def run(rounds: int) -> Action:
        kernel.set_args(out.memory, np.int32(rounds))
        return lambda: _run(device, kernel, items)

    rounds = 16
    while _seconds(run(rounds)) * 1e3 < ENOUGH_MS and rounds < 1 << 24:
        rounds *= 2
    flop = 2 * CHAINS * width * rounds * items
    return flop / _least_seconds(run(rounds)) / 1e9


def _bandwidth(device: OpenCLDevice, program: cl.Program) -> float:
    """GB/s of a = b + c, reads and writes counted, on arrays several times the cache."""
    nbytes = _large(device)
    arrays = [device.alloc(nbytes) for _ in range(3)]
    zeros = np.zeros(nbytes, np.uint8)
    for array in arrays:
        device.wait(device.copy(array, zeros, ()))
    best = min(_stream_seconds(device, program, arrays, *form) for form in STREAMS.items())
    return 3 * nbytes / best / 1e9


def _stream_seconds(
    device: OpenCLDevice, program: cl.Program, arrays: list[OpenCLBuffer], entry: str, step: int
) -> float:
    kernel = cl.Kernel(program, entry)
    kernel.set_args(*(array.memory for array in arrays))
    return _least_seconds(lambda: _run(device, kernel, arrays[0].nbytes // step))


def _large(device: OpenCLDevice) -> int:
    """Bytes of a large array: several times the cache, and a small part of the memory."""
    wanted = max(4 * int(device.device.global_mem_cache_size), 64 << 20)
    return min(wanted, LARGEST_BYTES, int(device.device.max_mem_alloc_size) // 4) // 1024 * 1024


def _launch_us(device: OpenCLDevice, program: cl.Program) -> float:
    """Host time of one enqueue among many."""
    kernel = cl.Kernel(program, "empty")

    def burst() -> float:
        start = time.perf_counter()
        for _ in range(BURST):
            cl.enqueue_nd_range_kernel(device.queue, kernel, (1,), None)
        device.queue.flush()
        elapsed = time.perf_counter() - start
        device.queue.finish()
        return elapsed / BURST

    return quiet_latency(burst) * 1e6


def _sync_us(device: OpenCLDevice, program: cl.Program) -> float:
    """Host time of an empty kernel and the wait for it."""
    kernel = cl.Kernel(program, "empty")
    return _latency(lambda: _run(device, kernel, 1)) * 1e6


def _links(device: OpenCLDevice) -> dict[str, Link]:
    """Ways between host and device memory."""
    large = _large(device)
    buffer = device.alloc(large)
    host = np.zeros(large, np.uint8)

    def write(nbytes: int) -> Action:
        source = host[:nbytes]
        return lambda: cl.enqueue_copy(device.queue, buffer.memory, source, is_blocking=True)

    def read(nbytes: int) -> Action:
        target = host[:nbytes]
        return lambda: cl.enqueue_copy(device.queue, target, buffer.memory, is_blocking=True)

    links = {
        "write": _link(write, large),
        "read": _link(read, large),
        "map": _link(lambda nbytes: _mapping(device, buffer.memory, nbytes), large),
    }
    svm = _svm(device, large)
    if svm is not None:
        links["svm"] = _link(lambda nbytes: _svm_copy(device, svm, host, nbytes), large)
    return links


def _link(transfer: Callable[[int], Action], large: int) -> Link:
    """Latency of tiny transfers, bandwidth of large ones."""
    tiny = _latency(transfer(TINY_BYTES))
    long = _least_seconds(transfer(large))
    gbps = large / max(long - tiny, large / (ZERO_COPY_GBPS * 1e9)) / 1e9
    return Link(latency_us=tiny * 1e6, gbps=gbps)


def _mapping(device: OpenCLDevice, memory: cl.Buffer, nbytes: int) -> Action:
    """Map for reading and writing, and unmap."""
    flags = cl.map_flags.READ | cl.map_flags.WRITE
    # PyOpenCL's annotations of this call are narrower than what it takes.
    enqueue: Any = cl.enqueue_map_buffer

    def act() -> None:
        mapped, _ = enqueue(device.queue, memory, flags, 0, (nbytes,), np.uint8)
        mapped.base.release(device.queue).wait()

    return act


def _svm(device: OpenCLDevice, nbytes: int) -> Any | None:
    """Coarse-grained shared memory, or ``None`` where the device has none."""
    capabilities = int(getattr(device.device, "svm_capabilities", 0))
    if not capabilities & int(cl.device_svm_capabilities.COARSE_GRAIN_BUFFER):
        return None
    return cl.SVM(cl.csvm_empty(device.context, (nbytes,), np.uint8))


def _svm_copy(device: OpenCLDevice, svm: Any, host: np.ndarray[Any, Any], nbytes: int) -> Action:
    part = cl.SVM(svm.mem[:nbytes])
    source = cl.SVM(host[:nbytes])
    return lambda: cl.enqueue_copy(device.queue, part, source, is_blocking=True)


def _run(device: OpenCLDevice, kernel: cl.Kernel, items: int) -> None:
    """Launch and wait. Groups are small: few large ones leave compute units idle at the end."""
    local = (GROUP,) if items % GROUP == 0 else None
    device.block(cl.enqueue_nd_range_kernel(device.queue, kernel, (items,), local))


def _seconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _least_seconds(action: Action) -> float:
    """Best of several calls, after one that warms up."""
    action()
    return min(_seconds(action) for _ in range(REPEATS))


def _latency(action: Action) -> float:
    """Seconds of a short action in quiet moments."""
    return quiet_latency(lambda: _seconds(action))
