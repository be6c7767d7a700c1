"""The time of one operator call, measured with the processor itself: a region of one node, run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from coexec.core.events import Event
from coexec.core.processor import Buffer, Executable, Processor, Ticket
from coexec.core.types import Array, OpCall, Region, TensorType
from coexec.cost.distribution import Distribution

WARM_UP, LEAST_RUNS, MOST_RUNS = 2, 6, 30
ENOUGH_SECONDS = 0.05
"""A call is run until either this or ``MOST_RUNS`` is reached."""
BATCH, BATCH_SECONDS = 8, 0.01
"""Runs that are handed over at once: at most so many, and no more than take about this long."""
MOST_AT_ONCE = 64
"""As many, where they only keep a processor busy."""
PATTERN = 4096
"""Random elements that operands repeat."""
COLD_BYTES, MOST_COPIES = 32 << 20, 8
"""Copies of constants take about so much memory, and there are at most so many; of constants that
take more by themselves there is one: no cache of a core has its beginning when they end."""
SWEPT_BYTES, SWEPT_ROWS = 96 << 20, 256
"""Memory that is read to drive constants out of caches: as much as networks have, and more than the
share of a large cache that others leave to a process."""
FEW_BYTES = 1 << 14
"""Of constants that are fewer one copy is enough: reading them takes no time that shows."""
F32 = np.dtype(np.float32)
Sweep = Callable[[], Ticket]
"""Starts what drives all else out of a processor's caches."""


def measure_call(
    processor: Processor, call: OpCall, sweep: Sweep | None = None, seed: int = 0
) -> Distribution:
    """Times of ``call`` by the processor's own clock, after a warm-up, on seeded data.

    From the start of its first kernel to the end of its last, with other work before it in the
    queue: what hands the work over, waits for it and wakes the processor is not in, for within a
    region that overlaps with other kernels.

    A network reads each of its weights once, so that no cache has them, and what the layer before
    computed lies in one. So runs take turns at copies of the constants (:func:`copies_of`), and
    between two rounds of these ``sweep`` drives them out of all caches; operands and results are
    the same in all runs. The first run behind a sweep, which finds neither, does not count.

    Raises:
        ProcessorError: it does not compile or run.
    """
    submits = _with_own_constants(processor, call, seed)
    once = min(processor.wait(submits[-1]()).duration_ns for _ in range(WARM_UP)) / 1e9
    if len(submits) > 1 and sweep is not None:
        rounds = [sweep, *submits]
    else:
        count = max(2, min(BATCH, round(BATCH_SECONDS / max(once, 1e-9))))
        rounds = list(itertools.islice(itertools.cycle(submits), count))
    samples: list[float] = []
    began = time.perf_counter()
    while len(samples) < LEAST_RUNS or (
        len(samples) < MOST_RUNS and time.perf_counter() - began < ENOUGH_SECONDS
    ):
        tickets = [submit() for submit in rounds]
        events = [processor.wait(ticket) for ticket in tickets]
        samples += _apart(events[1:] if rounds[0] is sweep else events)
    return Distribution.of(samples)


def sweep_of(processor: Processor) -> Sweep | None:
    """What reads :data:`SWEPT_BYTES` on a processor, and drives all else out of its caches.

    Nothing where it has no such region: it does not add up.

    Raises:
        ProcessorError: that does not compile or run.
    """
    rows, columns = TensorType((SWEPT_ROWS, SWEPT_BYTES // SWEPT_ROWS // 4), F32), (SWEPT_ROWS,)
    axes = np.array([1])
    call = OpCall(
        "ReduceSum",
        (rows, TensorType.of(axes)),
        {"keepdims": 0},
        (TensorType(columns, F32),),
        {1: axes},
        version=21,
    )
    return _prepared(processor, call, 0) if processor.supports(call).yes else None


def copies_of(executable: Executable) -> int:
    """How many times a call is compiled, so that constants are in no cache when they are read."""
    if executable.constant_bytes < FEW_BYTES:
        return 1
    least = 2 if executable.constant_bytes <= COLD_BYTES else 1
    return max(least, min(MOST_COPIES, COLD_BYTES // executable.constant_bytes))


def _with_own_constants(
    processor: Processor, call: OpCall, seed: int
) -> list[Callable[[], Ticket]]:
    """Functions that start the call, each on constants of its own, and all on the same operands.

    All have run once; they start it as programs do that run again and again.
    """
    region = Region.alone(call)
    first = processor.compile(region)
    others = (processor.compile(region) for _ in range(1, copies_of(first)))
    buffers = _buffers(processor, region, first, np.random.default_rng(seed))
    submits: list[Callable[[], Ticket]] = []
    for executable in (first, *others):
        submit = partial(processor.submit, executable, buffers, ())
        processor.wait(submit())
        submits.append(processor.again(executable, buffers) or submit)
    return submits


def _apart(events: Sequence[Event]) -> list[float]:
    """Microseconds of each event that follows another one, which is not in them."""
    return [
        min(event.duration_ns, event.end_ns - before.end_ns) / 1e3
        for before, event in itertools.pairwise(events)
    ]


def prepare_call(processor: Processor, call: OpCall, seed: int = 0) -> Callable[[], Event]:
    """Compile ``call`` alone, with seeded operands: a function that runs it once and waits.

    Raises:
        ProcessorError: it does not compile.
    """
    submit = _prepared(processor, call, seed)
    return lambda: processor.wait(submit())


def prepare_busy(processor: Processor, call: OpCall, seed: int = 0) -> Callable[[], None]:
    """As :func:`prepare_call`: a function that hands it over many times at once and waits.

    For about :data:`BATCH_SECONDS` the processor computes, and the host does not: what it does
    for one call after the other may take a core from who computes beside that.
    """
    submit = _prepared(processor, call, seed)
    once = min(processor.wait(submit()).duration_ns for _ in range(WARM_UP)) / 1e9
    count = max(1, min(MOST_AT_ONCE, round(BATCH_SECONDS / max(once, 1e-9))))

    def keep_busy() -> None:
        tickets = [submit() for _ in range(count)]
        processor.wait(tickets[-1])

    return keep_busy


def _prepared(processor: Processor, call: OpCall, seed: int) -> Callable[[], Ticket]:
    submit = prepare_region(processor, call, seed)
    return lambda: submit({})


def prepare_region(
    processor: Processor, call: OpCall, seed: int = 0
) -> Callable[[Mapping[str, Buffer]], Ticket]:
    """As :func:`prepare_call`: a function that starts the call once, with buffers of one's own.

    Those are by name of the tensor: ``x0``, ``y0``, ...
    """
    region = Region.alone(call)
    executable = processor.compile(region)
    buffers = _buffers(processor, region, executable, np.random.default_rng(seed))

    def submit(own: Mapping[str, Buffer]) -> Ticket:
        pairs = zip(executable.arguments, buffers, strict=True)
        return processor.submit(executable, [own.get(name, known) for name, known in pairs], ())

    return submit


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
