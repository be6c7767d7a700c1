"""The OpenCL processors of this machine, opened and listed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.processors.opencl.describe import spec_of
from coexec.processors.opencl.discover import ABSENT, NO_RUNTIME, choose_device, devices
from coexec.processors.opencl.measure import measure as measure_device
from coexec.processors.opencl.options import DeviceOptions, parse_options
from coexec.processors.opencl.processor import OpenCLProcessor


def candidates() -> list[Candidate]:
    """OpenCL devices that are here, then the runtimes that could be, with how to get them."""
    found = [Candidate(name, spec_of(name, device)) for name, device in devices().items()]
    if not found:
        return [Candidate("opencl", None, NO_RUNTIME)]
    missing = {name: reason for name, reason in ABSENT.items() if name not in devices()}
    return found + [Candidate(name, None, reason) for name, reason in missing.items()]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open a device, once for each set of options.

    Raises:
        ProcessorError: no such device, or an option that does not exist (the known are listed).
    """
    chosen, _ = choose_device(name)
    return _opened(chosen, parse_options(name, options))


def measure(name: str) -> Rates:
    """Measured limits of a device."""
    return measure_device(_opened(choose_device(name)[0], DeviceOptions()))


@functools.cache
def _opened(name: str, options: DeviceOptions) -> OpenCLProcessor:
    return OpenCLProcessor(f"{name}{options}", devices()[name], options)
