"""A part of an OpenCL device as a processor of its own: ``opencl:<runtime>?cores=K``.

The part is the last K cores, so that others may be tied to the first ones: on a machine without GPU
``ort:cpu?cores=0`` and ``opencl:intel?cores=1`` are two physically separate processors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import pyopencl as cl

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.processors.opencl.discover import choose_device
from coexec.processors.opencl.pocl_cores import limit_pocl, pocl_limit

POCL = "opencl:pocl"


def choose_part(name: str, cores: int) -> tuple[str, cl.Device]:
    """The device a spec means with its full name, or the last ``cores`` cores of it (0: all).

    PoCL does not restrict the threads of its sub-devices. Its part is PoCL as a whole, started with
    fewer threads; so there is one of them in a process, and then no whole PoCL.

    Raises:
        ProcessorError: no such device, or it cannot be divided in this way (with the reason).
    """
    if cores and name == "opencl":
        raise ProcessorError(f"which runtime's cores? write opencl:<runtime>?cores={cores}")
    if cores and name == POCL:
        limit_pocl(host_part(name, cores))
    chosen, device = choose_device(name)
    if chosen == POCL:
        limit = pocl_limit()
        if limit and limit != cores:
            raise ProcessorError(
                f"{chosen} was opened with cores={limit} and has no more threads in this process; "
                f"write {chosen}?cores={limit}, or use another process"
            )
        return chosen, device
    return chosen, divide(chosen, device, cores) if cores else device


def host_part(name: str, cores: int) -> Sequence[tuple[int, ...]]:
    """The last cores of this host, each as its logical CPUs.

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
    return available[-cores:]


@functools.cache
def divide(name: str, device: cl.Device, cores: int) -> cl.Device:
    """A sub-device of the last cores of a CPU, or of the last compute units of another device.

    Raises:
        ProcessorError: the device has fewer, or its driver does not divide it.
    """
    units, wanted = device.max_compute_units, cores
    if device.type & cl.device_type.CPU:
        host_part(name, cores)
        # Drivers count logical CPUs: two of them are one core where cores have two threads.
        wanted = cores * units // len(physical_cores())
    if wanted > units:
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
    counts: Any = [kinds.BY_COUNTS, units - wanted, wanted, 0]
    try:
        return device.create_sub_devices(counts)[-1]
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
