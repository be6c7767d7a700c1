"""Launches of training steps as a GPU would get them: laid out for one, nothing is built or run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Optimizer
from coexec.core.types import Region
from coexec.ops.node import type_of
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable
from coexec.processors.opencl.family import DeviceFacts
from tests.runtimes import THOROUGH, open_opencl

GPU = f"{THOROUGH[0]}?unit=gpu"
"""A driver for CPUs that gets the kernels of a GPU."""
UNITS = 8
"""Compute units of the GPU that is laid out for: as a phone's."""


def gpu_facts() -> DeviceFacts:
    """What kernels for such a GPU may depend on."""
    return replace(open_opencl(GPU).facts, compute_units=UNITS)


def launches_of(
    network: str, batch: int, facts: DeviceFacts, optimizer: Optimizer | None = None
) -> Sequence[KernelStep]:
    """Kernels of a training step of a zoo model on a device of which ``facts`` hold."""
    processor = open_opencl(GPU)
    found: list[KernelStep] = []

    def lay_out(region: Region) -> OpenCLExecutable:
        made = compile_region(region, facts, processor.name)
        found.extend(step for step in made.steps if isinstance(step, KernelStep))
        return made

    model = coexec.load(zoo.build(network, batch=batch))
    rule = optimizer or SGD(0.01, momentum=0.9)
    trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), rule, [GPU])
    own = processor.lay_out
    processor.lay_out = lay_out  # type: ignore[method-assign]
    try:
        kind = type_of(next(iter(model.graph.inputs)))
        trainer.planned_bytes({"x": np.zeros(kind.shape, kind.dtype)})
    finally:
        processor.lay_out = own  # type: ignore[method-assign]
    assert found
    return found


def group_of(step: KernelStep) -> int:
    """Work-items of a work-group; where the driver decides, the most that it may take."""
    return prod(step.global_size if step.local_size is None else step.local_size)


def elements_of(step: KernelStep) -> int:
    """Elements that a launch moves, or its work-items where those are more."""
    return max(step.label.bytes // 4, prod(step.global_size))
