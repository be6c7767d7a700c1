"""Steps bound to memory: enqueueing them needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyopencl as cl

from coexec.processors.opencl.executable import KernelStep, Label, Slot
from coexec.processors.opencl.family import Scalar
from coexec.processors.opencl.invokers import remember_invokers

remember_invokers()


@dataclass
class BoundKernel:
    """A kernel whose arguments are set: enqueueing it needs nothing else."""

    kernel: cl.Kernel
    arguments: tuple[cl.Buffer | float, ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None

    def set_arguments(self) -> None:
        """Set every argument (again)."""
        self.kernel.set_args(*self.arguments)

    def enqueue(self, queue: cl.CommandQueue) -> cl.Event:
        return cl.enqueue_nd_range_kernel(queue, self.kernel, self.global_size, self.local_size)


@dataclass
class BoundCopy:
    """A device-to-device copy with its operands resolved."""

    dst: cl.Buffer
    src: cl.Buffer
    nbytes: int

    def set_arguments(self) -> None:
        """Nothing to do: a copy takes its operands when it is enqueued."""

    def enqueue(self, queue: cl.CommandQueue) -> cl.Event:
        return cl.enqueue_copy(queue, self.dst, self.src, byte_count=self.nbytes)


@dataclass
class BoundRegion:
    """Steps of a region bound to buffers; ``keep`` holds memory that kernels only point to."""

    steps: list[BoundKernel | BoundCopy]
    labels: list[Label]
    keep: list[cl.Buffer]

    def set_arguments(self) -> None:
        """Set the arguments of every kernel again, as engines do that build each launch anew."""
        for step in self.steps:
            step.set_arguments()

    def then(self, other: BoundRegion) -> BoundRegion:
        """The steps of both, one after another."""
        return BoundRegion(
            self.steps + other.steps, self.labels + other.labels, self.keep + other.keep
        )


def bind_kernel(
    step: KernelStep, program: cl.Program, resolve: Callable[[Slot], cl.Buffer]
) -> BoundKernel:
    """A kernel object of the step's own, with the memory that its slots mean."""
    kernel = cl.Kernel(program, step.entry)
    # Arguments of known types are set at once; one by one, PyOpenCL takes each number for a buffer
    # first, and 15 us to find that it is none.
    kernel.set_arg_types([arg.dtype if isinstance(arg, Scalar) else None for arg in step.args])
    arguments = tuple(
        arg.pack().item() if isinstance(arg, Scalar) else resolve(arg) for arg in step.args
    )
    bound = BoundKernel(kernel, arguments, step.global_size, step.local_size)
    bound.set_arguments()
    return bound
