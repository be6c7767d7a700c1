"""The physical cores of this host: what a processor that runs on the CPU may be tied to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")

Core = tuple[int, ...]
"""The logical CPUs of one physical core."""


def physical_cores(topology: Path = TOPOLOGY) -> tuple[Core, ...]:
    """Cores that this process may use, by their lowest logical CPU; empty if the OS cannot pin.

    Where Linux does not tell which CPUs share a core, each counts as one.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    siblings: dict[str, list[int]] = {}
    for cpu in allowed:
        siblings.setdefault(_core_of(topology, cpu), []).append(cpu)
    return tuple(tuple(cpus) for cpus in siblings.values())


def pin_this_thread(cores: tuple[Core, ...]) -> None:
    """Run the calling thread, and threads that it starts, on these cores alone."""
    os.sched_setaffinity(0, {cpu for core in cores for cpu in core})


@contextmanager
def pinned(cores: tuple[Core, ...]) -> Iterator[None]:
    """Run the calling thread on these cores alone for a while; on any that it may use if none."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    pin_this_thread(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _core_of(topology: Path, cpu: int) -> str:
    """A text that CPUs of one core have in common."""
    file = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return file.read_text().strip() if file.exists() else str(cpu)


def resources_of(cores: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of physical cores by number (all of them by default), for a processor's resources.

    Plain ``cpu``, which is all cores, where the OS does not tell them apart.
    """
    numbers = range(len(physical_cores())) if cores is None else cores
    return tuple(f"cpu:{number}" for number in numbers) or ("cpu",)


def cores_of(resources: Sequence[str]) -> tuple[Core, ...]:
    """The physical cores that :func:`resources_of` gives these names; none if it gave not all."""
    known = dict(zip(resources_of(), physical_cores(), strict=False))
    return tuple(known[name] for name in resources) if known.keys() >= set(resources) else ()
