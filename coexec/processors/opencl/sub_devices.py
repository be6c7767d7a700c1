"""A part of an OpenCL device as a processor of its own: ``opencl:<runtime>?cores=K``.

The part is the last K cores, so that others may be tied to the first ones: on a machine without GPU
``ort:cpu?cores=0`` and ``opencl:intel?cores=1`` are two physically separate processors. So are
``opencl:intel?cores=1`` and ``opencl:pocl?cores=1&first=0``: ``first`` is the number of the first
core of the part.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import pyopencl as cl

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.processors.opencl.discover import choose_device
from coexec.processors.opencl.options import LAST_ONES
from coexec.processors.opencl.pocl_cores import limit_pocl, pocl_limit

POCL = "opencl:pocl"


def choose_part(name: str, cores: int, first: int = LAST_ONES) -> tuple[str, cl.Device]:
    """The device a spec means with its full name, or ``cores`` cores of it (0: all).

    They are those from number ``first`` on, or the last ones.

    PoCL does not restrict the threads of its sub-devices. Its part is PoCL as a whole, started with
    fewer threads; so there is one of them in a process, and then no whole PoCL.

    Raises:
        ProcessorError: no such device, or it cannot be divided in this way (with the reason).
    """
    if cores and name == "opencl":
        raise ProcessorError(f"which runtime's cores? write opencl:<runtime>?cores={cores}")
    if cores and name == POCL:
        limit_pocl(host_part(name, cores, first))
    chosen, device = choose_device(name)
    if chosen == POCL:
        limit = pocl_limit()
        if limit and limit != cores:
            raise ProcessorError(
                f"{chosen} was opened with cores={limit} and has no more threads in this process; "
                f"write {chosen}?cores={limit}, or use another process"
            )
        return chosen, device
    return chosen, divide(chosen, device, cores, first) if cores else device


def host_part(name: str, cores: int, first: int = LAST_ONES) -> Sequence[tuple[int, ...]]:
    """Cores of this host from ``first`` on (the last ones by default), each as its logical CPUs.

    Raises:
        ProcessorError: there are not so many, or the OS does not tell them apart.
    """
    available = physical_cores()
    if not available:
        raise ProcessorError(f"processor {name!r}: this system does not tie threads to cores")
    if cores > len(available):
        raise ProcessorError(
            f"processor {name!r}: this process has {len(available)} cores, not {cores}"
        )
    start = len(available) - cores if first == LAST_ONES else first
    if start + cores > len(available):
        raise ProcessorError(
            f"processor {name!r}: there are no {cores} cores from number {first} on; "
            f"this process has {len(available)}"
        )
    return available[start : start + cores]


@functools.cache
def divide(name: str, device: cl.Device, cores: int, first: int = LAST_ONES) -> cl.Device:
    """A sub-device of cores of a CPU, or of compute units of another device.

    Raises:
        ProcessorError: the device has fewer, or its driver does not divide it.
    """
    units, each = device.max_compute_units, 1
    if device.type & cl.device_type.CPU:
        host_part(name, cores, first)
        # Drivers count logical CPUs: two of them are one core where cores have two threads.
        each = units // len(physical_cores())
    wanted = cores * each
    before = units - wanted if first == LAST_ONES else first * each
    if before < 0 or before + wanted > units:
        raise ProcessorError(f"processor {name!r} has {units} compute units, not {wanted}")
    if wanted == units:
        return device
    kinds = cl.device_partition_property
    if kinds.BY_COUNTS not in _partitions(device):
        raise ProcessorError(
            f"processor {name!r}: the driver of {device.name.strip()} does not divide it; "
            f"leave cores={cores} out"
        )
    # A list of properties and numbers, which PyOpenCL's annotation does not know.
    parts = [count for count in (before, wanted, units - before - wanted) if count]
    counts: Any = [kinds.BY_COUNTS, *parts, 0]
    try:
        return device.create_sub_devices(counts)[1 if before else 0]
    except cl.Error as error:
        raise ProcessorError(
            f"processor {name!r}: {wanted} of {units} compute units are refused ({error})"
        ) from error


def _partitions(device: cl.Device) -> Sequence[int]:
    """The ways in which a driver divides a device; none before OpenCL 1.2."""
    try:
        return cast(Sequence[int], device.partition_properties)
    except cl.Error:
        return ()
