"""What a simulated processor did, as the events of any other."""

from __future__ import annotations

from coexec.core.events import COPY, LAUNCH, Event
from coexec.core.types import compute_dtype
from coexec.ops.table import opdef
from coexec.processors.simulated.executable import Kernel, SimulatedExecutable
from coexec.simulation.work import Job


def copy_event(track: str, direction: str, nbytes: int, job: Job) -> Event:
    """A copy."""
    return Event(direction, COPY, track, _ns(job.begin_us), _ns(job.end_us), bytes=nbytes)


def launch_event(track: str, executable: SimulatedExecutable, job: Job, detailed: bool) -> Event:
    """A launch; ``detailed``: with its kernels."""
    parts = _parts(track, executable, job) if detailed else ()
    return Event(
        f"{len(executable.kernels)} kernels",
        LAUNCH,
        track,
        _ns(job.begin_us),
        _ns(job.end_us),
        flop=round(sum(kernel.cost.flop for kernel in executable.kernels)),
        bytes=round(sum(kernel.cost.memory_bytes for kernel in executable.kernels)),
        parts=parts,
    )


def _parts(track: str, executable: SimulatedExecutable, job: Job) -> tuple[Event, ...]:
    """Kernels: each starts when it was handed over, after the one before it."""
    parts, previous = [], job.begin_us
    for kernel, fixed, end in zip(
        executable.kernels, job.work.fixed_us.tolist(), job.ends_us, strict=False
    ):
        parts.append(_part(track, kernel, min(previous + fixed, end), end))
        previous = end
    return tuple(parts)


def _part(track: str, kernel: Kernel, start_us: float, end_us: float) -> Event:
    node = kernel.nodes[0]
    op = opdef(node.call)
    return Event(
        node.call.name or op.identifier,
        LAUNCH,
        track,
        _ns(start_us),
        _ns(end_us),
        flop=round(kernel.cost.flop),
        bytes=round(kernel.cost.memory_bytes),
        operator=op.identifier,
        phase=node.provenance.get("phase", ""),
        source=node.provenance.get("source", ""),
        dtype=compute_dtype(node.call),
        choice=" + ".join(each.call.op_type for each in kernel.nodes[1:]),
    )


def _ns(us: float) -> int:
    return round(us * 1e3)
