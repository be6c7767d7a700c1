"""The time of one operator call, measured with the processor itself: a region of one node, run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from coexec.core.events import Event
from coexec.core.processor import Buffer, Executable, Processor, Ticket
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.cost.distribution import Distribution

WARM_UP, LEAST_RUNS, MOST_RUNS = 2, 5, 30
ENOUGH_SECONDS = 0.05
"""A call is run until either this or ``MOST_RUNS`` is reached."""
PATTERN = 4096
"""Random elements that operands repeat."""


def measure_call(processor: Processor, call: OpCall, seed: int = 0) -> Distribution:
    """Times of ``call`` by the processor's own clock, after a warm-up, on seeded data.

    From the start of its first kernel to the end of its last: what hands the work over and waits
    for it is not in, for within a region it overlaps with other kernels.

    Raises:
        ProcessorError: it does not compile or run.
    """
    run = prepare_call(processor, call, seed)
    for _ in range(WARM_UP):
        run()
    samples: list[float] = []
    began = time.perf_counter()
    while len(samples) < LEAST_RUNS or (
        len(samples) < MOST_RUNS and time.perf_counter() - began < ENOUGH_SECONDS
    ):
        samples.append(run().duration_ns / 1e3)
    return Distribution.of(samples)


def prepare_call(processor: Processor, call: OpCall, seed: int = 0) -> Callable[[], Event]:
    """Compile ``call`` alone, with seeded operands: a function that runs it once and waits.

    Raises:
        ProcessorError: it does not compile.
    """
    region = Region.alone(call)
    executable = processor.compile(region)
    buffers = _buffers(processor, region, executable, np.random.default_rng(seed))
    return lambda: processor.wait(processor.submit(executable, buffers, ()))


def _buffers(
    processor: Processor, region: Region, executable: Executable, rng: np.random.Generator
) -> list[Buffer]:
    buffers: list[Buffer] = []
    tickets: list[Ticket] = []
    for name in executable.inputs:
        data = _data(region.types[name], rng)
        buffers.append(processor.alloc(data.nbytes))
        tickets.append(processor.copy(buffers[-1], data, ()))
    for ticket in tickets:
        processor.wait(ticket)
    buffers += [processor.alloc(region.types[name].nbytes) for name in executable.outputs]
    if executable.scratch_bytes:
        buffers.append(processor.alloc(executable.scratch_bytes))
    return buffers


def _data(kind: TensorType, rng: np.random.Generator) -> Array:
    """Floats between 0.1 and 1, in the domain of every function; integers 0, a valid index."""
    if "float" in kind.dtype.name:
        pattern = rng.uniform(0.1, 1.0, PATTERN).astype(kind.dtype)
        return np.ascontiguousarray(np.resize(pattern, kind.shape))
    return np.zeros(kind.shape, kind.dtype)
