"""What an OpenCL device says about itself, for people and for kernels."""

from __future__ import annotations

from dataclasses import replace

import pyopencl as cl

from coexec.base.cores import resources_of
from coexec.core.processor import ProcessorSpec
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.options import LAST_ONES

GPU_GROUP, GPU_LOCAL_BYTES = 256, 32 << 10
"""Work-items and local memory of a group that GPUs of phones have, too."""


def facts_of(device: cl.Device, unit: str = "best") -> DeviceFacts:
    """What kernels may depend on; with ``unit="gpu"``, as if the device were a GPU of a phone."""
    facts = _own_facts(device)
    if unit != "gpu" or facts.unit_kind == "gpu":
        return facts
    return replace(
        facts,
        max_work_group_size=min(facts.max_work_group_size, GPU_GROUP),
        local_bytes=min(facts.local_bytes, GPU_LOCAL_BYTES),
        vector_bytes=4,
        unit_kind="gpu",
        on_chip=True,
    )


def _own_facts(device: cl.Device) -> DeviceFacts:
    extensions = device.extensions.split()
    return DeviceFacts(
        name=device.name.strip(),
        vendor=device.vendor.strip(),
        fp16="cl_khr_fp16" in extensions,
        fp64="cl_khr_fp64" in extensions,
        max_work_group_size=device.max_work_group_size,
        local_bytes=device.local_mem_size,
        compute_units=device.max_compute_units,
        alignment=max(device.mem_base_addr_align // 8, 64),
        vector_bytes=4 * max(int(device.native_vector_width_float), 1),
        unit_kind="cpu" if device.type & cl.device_type.CPU else "gpu",
        on_chip=device.local_mem_type == cl.device_local_mem_type.LOCAL,
    )


def spec_of(
    name: str,
    device: cl.Device,
    cores: int = 0,
    first: int = LAST_ONES,
    unit: str = "best",
) -> ProcessorSpec:
    """What ``coexec devices`` prints; ``cores`` from ``first`` on if it is a part of a CPU."""
    extensions = device.extensions.split()
    svm = getattr(device, "svm_capabilities", 0)
    is_cpu = bool(device.type & cl.device_type.CPU)
    return ProcessorSpec(
        name=name,
        kind=_kind(device),
        device=device.name.strip(),
        driver=f"{device.platform.name.strip()} {device.driver_version.strip()}",
        compute_units=device.max_compute_units,
        memory_bytes=device.global_mem_size,
        unified_memory=is_cpu or bool(device.host_unified_memory),
        features={
            "fp16": "cl_khr_fp16" in extensions,
            "fp64": "cl_khr_fp64" in extensions,
            "images": bool(device.image_support),
            "svm": bool(svm),
            **({"kernels for GPUs": True} if is_cpu and unit == "gpu" else {}),
        },
        resources=_part(cores, first) if is_cpu else (name.partition("?")[0],),
    )


def _kind(device: cl.Device) -> str:
    """The device's type; a simulator that claims several is named after the first."""
    kinds = {
        "gpu": cl.device_type.GPU,
        "accelerator": cl.device_type.ACCELERATOR,
        "cpu": cl.device_type.CPU,
    }
    return next((name for name, bit in kinds.items() if device.type & bit), "custom")


def _part(cores: int, first: int) -> tuple[str, ...]:
    """Names of cores of this host, 0 for all: what a part of a CPU occupies."""
    names = resources_of()
    return names[-cores:] if first == LAST_ONES else names[first : first + cores]
