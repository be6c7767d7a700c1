"""The OpenCL processors of this machine, opened and listed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pyopencl as cl

from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.processors.opencl.describe import spec_of
from coexec.processors.opencl.discover import ABSENT, NO_RUNTIME, devices
from coexec.processors.opencl.measure import measure as measure_device
from coexec.processors.opencl.options import DeviceOptions, parse_options
from coexec.processors.opencl.pocl_cores import pocl_limit
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.sub_devices import POCL, choose_part


def candidates() -> list[Candidate]:
    """OpenCL devices that are here, then the runtimes that could be, with how to get them."""
    found = [_candidate(name, device) for name, device in devices().items()]
    if not found:
        return [Candidate("opencl", None, NO_RUNTIME)]
    missing = {name: reason for name, reason in ABSENT.items() if name not in devices()}
    return found + [Candidate(name, None, reason) for name, reason in missing.items()]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open a device, once for each set of options.

    Raises:
        ProcessorError: no such device, an option that does not exist (the known are listed), or
            more cores than there are.
    """
    parsed = parse_options(name, options)
    chosen, device = choose_part(name, parsed.cores, parsed.first)
    return _opened(chosen, device, parsed)


def measure(name: str, options: Mapping[str, str]) -> Rates:
    """Measured limits of a device or a part of it; other options do not count."""
    parsed = parse_options(name, options)
    part = choose_part(name, parsed.cores, parsed.first)
    options_of_part = DeviceOptions(cores=parsed.cores, first=parsed.first)
    return measure_device(_opened(*part, options_of_part))


def _candidate(name: str, device: cl.Device) -> Candidate:
    """A device as it can be opened: of PoCL maybe only a part, as it makes its threads once."""
    cores = pocl_limit() if name == POCL else 0
    spec = f"{name}{DeviceOptions(cores=cores)}"
    return Candidate(spec, spec_of(spec, device, cores))


@functools.cache
def _opened(name: str, device: cl.Device, options: DeviceOptions) -> OpenCLProcessor:
    return OpenCLProcessor(f"{name}{options}", device, options)
