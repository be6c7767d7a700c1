"""OpenCL devices of this machine by name: ``opencl:<platform>[:<device number>]``."""

from __future__ import annotations

import functools
import re

import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.base.interrupts import interrupts_held
from coexec.base.names import known_names
from coexec.processors.opencl.runtimes import prepare_loader

PLATFORMS = {
    "Portable Computing Language": "pocl",
    "Intel(R) OpenCL": "intel",
    "Intel(R) OpenCL Graphics": "intel-gpu",
    "NVIDIA CUDA": "nvidia",
    "AMD Accelerated Parallel Processing": "amd",
    "ARM Platform": "arm",
    "QUALCOMM Snapdragon(TM)": "qualcomm",
}
"""Short names of platforms; any other platform is named after its own first word."""

ABSENT = {
    "opencl:pocl": "not installed: pip install pocl-binary-distribution (Linux x86-64), "
    "else your system's PoCL package (Debian: pocl-opencl-icd)",
    "opencl:intel": "not installed: pip install 'coexec[intel]' (Linux x86-64)",
    "opencl:oclgrind": "not loaded: install Debian's oclgrind and set COEXEC_OCLGRIND=1 "
    "(it checks kernels, slowly)",
    "opencl:rusticl": "no device: install Mesa's OpenCL (Debian: mesa-opencl-icd) and set "
    "RUSTICL_ENABLE to the GPU's driver (radeonsi, iris, panfrost, freedreno, asahi), or to "
    "llvmpipe (the CPU, to test kernels)",
}
NO_RUNTIME = (
    "no OpenCL runtime on this machine: pip install pocl-binary-distribution (Linux x86-64), "
    "or install the OpenCL driver of your GPU or your system's PoCL package "
    "(Debian: pocl-opencl-icd; Termux: see docs/android.md)"
)
RANK = (cl.device_type.GPU, cl.device_type.ACCELERATOR, cl.device_type.CPU)
"""Preference among device types for the plain spec ``opencl``."""
FOR_TESTS = ("rusticl", "Clover", "Oclgrind")
"""Platforms whose CPUs are the slowest way to use one: rasterisers and a checking interpreter."""


@functools.cache
def devices() -> dict[str, cl.Device]:
    """OpenCL devices by processor name, the preferred one first."""
    prepare_loader()
    named: dict[str, cl.Device] = {}
    with interrupts_held():  # here drivers begin their threads, from which some start linkers
        for platform in _platforms():
            short = _short_name(platform)
            for number, device in enumerate(platform.get_devices()):
                named[f"opencl:{short}" + (f":{number}" if number else "")] = device
    return dict(sorted(named.items(), key=lambda item: _preference(*item)))


def choose_device(name: str) -> tuple[str, cl.Device]:
    """The device a spec means, with its full name.

    Raises:
        ProcessorError: no runtime at all, or not this one (with what to install).
    """
    available = devices()
    if not available:
        raise ProcessorError(NO_RUNTIME)
    chosen = next(iter(available)) if name == "opencl" else name
    if chosen not in available:
        reason = f": {ABSENT[chosen]}" if chosen in ABSENT else ""
        known = known_names(name, available)
        raise ProcessorError(f"processor {name!r} is not available{reason}; {known}")
    return chosen, available[chosen]


def processor_name(device: cl.Device) -> str:
    """Processor name of a device, or of the one that it is a part of."""
    same = (device.platform.name, device.name)
    found = (n for n, each in devices().items() if (each.platform.name, each.name) == same)
    return next(found)


def _platforms() -> list[cl.Platform]:
    try:
        return cl.get_platforms()
    except cl.Error as error:
        if "PLATFORM_NOT_FOUND" in str(error):
            return []
        raise ProcessorError(f"the OpenCL loader failed: {error}") from error


def _short_name(platform: cl.Platform) -> str:
    name = platform.name.strip()
    return PLATFORMS.get(name) or re.sub(r"[^a-z0-9]+", "-", name.lower()).split("-")[0]


def _preference(name: str, device: cl.Device) -> tuple[int, int, str]:
    """GPUs first; among CPU runtimes the embedded PoCL; those that are there to test, last."""
    kind = next((i for i, kind in enumerate(RANK) if device.type & kind), len(RANK))
    if device.platform.name in FOR_TESTS and device.type & cl.device_type.CPU:
        return (len(RANK) + 1, FOR_TESTS.index(device.platform.name), name)
    return (kind, 0 if name == "opencl:pocl" else 1, name)
