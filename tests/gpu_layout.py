"""Launches of training steps as a GPU would get them: laid out for one, nothing is built or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Optimizer
from coexec.core.types import Region
from coexec.ops.node import type_of
from coexec.passes.compress_activations import Activations
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
    model: str | ir.Model,
    batch: int,
    facts: DeviceFacts,
    optimizer: Optimizer | None = None,
    activations: Activations = "full",
) -> Sequence[KernelStep]:
    """Kernels of a training step of a (zoo) model on a device of which ``facts`` hold."""
    loaded = coexec.load(zoo.build(model, batch=batch) if isinstance(model, str) else model)
    rule = optimizer or SGD(0.01, momentum=0.9)
    loss = SoftmaxCrossEntropy()
    trainer = coexec.Trainer(loaded, loss, rule, [GPU], activations=activations)
    kind = type_of(next(iter(loaded.graph.inputs)))
    with laid_out(facts) as found:
        trainer.planned_bytes({"x": np.zeros(kind.shape, kind.dtype)})
    assert found
    return found


@contextmanager
def laid_out(facts: DeviceFacts) -> Iterator[list[KernelStep]]:
    """Kernels of what is laid out meanwhile, on a device of which ``facts`` hold."""
    processor = open_opencl(GPU)
    found: list[KernelStep] = []

    def lay_out(region: Region) -> OpenCLExecutable:
        made = compile_region(region, facts, processor.name)
        found.extend(step for step in made.steps if isinstance(step, KernelStep))
        return made

    own = processor.lay_out
    processor.lay_out = lay_out  # type: ignore[method-assign]
    try:
        yield found
    finally:
        processor.lay_out = own  # type: ignore[method-assign]


def group_of(step: KernelStep) -> int:
    """Work-items of a work-group; where the driver decides, the most that it may take."""
    return prod(step.global_size if step.local_size is None else step.local_size)


def elements_of(step: KernelStep) -> int:
    """Elements that a launch moves, or its work-items where those are more."""
    return max(step.label.bytes // 4, prod(step.global_size))
