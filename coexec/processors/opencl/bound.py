"""Steps bound to memory: enqueueing them needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyopencl as cl

from coexec.base.pages import let_go
from coexec.core.pages import Pages
from coexec.processors.opencl.executable import KernelStep, Label, PageStep, Slot
from coexec.processors.opencl.family import Scalar
from coexec.processors.opencl.invokers import remember_invokers

remember_invokers()

Start = Callable[[], cl.Event]


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

    def starter(self, queue: cl.CommandQueue) -> Start:
        """What enqueues it, with nothing to look up."""
        size = (self.global_size, self.local_size)
        return partial(cl.enqueue_nd_range_kernel, queue, self.kernel, *size)


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
class BoundPage:
    """A transfer between ``memory`` and a page, or (without memory) the wait for one.

    ``transfers`` is a queue beside that of kernels. A transfer starts when all is done that was
    enqueued before it in the queue of kernels; the wait for it is a barrier there.
    """

    step: PageStep
    pages: Pages
    memory: cl.Buffer | None
    transfers: cl.CommandQueue

    def set_arguments(self) -> None:
        """Nothing to do: a transfer takes its operands when it is enqueued."""

    def enqueue(self, queue: cl.CommandQueue) -> cl.Event:
        """The event of the transfer, or of the barrier behind it."""
        key = (self.step.direction, self.step.page)
        if self.memory is None:
            ended: cl.Event = self.pages.under_way[key]
            return cl.enqueue_barrier(queue, wait_for=[ended])
        ready = cl.enqueue_marker(queue)
        queue.flush()
        event = self._transfer(self.memory, ready)
        self.transfers.flush()
        self.pages.under_way[key] = event
        _leave_to_system(event, self.pages, self.step.page, self.step.nbytes)
        return event

    def _transfer(self, memory: cl.Buffer, ready: cl.Event) -> cl.Event:
        host = self.pages.memory[self.step.page : self.step.page + self.step.nbytes]
        if self.step.direction == "out":
            return cl.enqueue_copy(
                self.transfers, host, memory, wait_for=[ready], is_blocking=False
            )
        return cl.enqueue_copy(self.transfers, memory, host, wait_for=[ready], is_blocking=False)


@dataclass
class BoundMove:
    """A kernel or a copy between the device and ``nbytes`` at ``page``, in memory that it reaches.

    Once it is done, what lies in a file there is no part of the process any more.
    """

    move: BoundKernel | BoundCopy
    pages: Pages
    page: int
    nbytes: int

    def set_arguments(self) -> None:
        """Set the arguments of the kernel again."""
        self.move.set_arguments()

    def enqueue(self, queue: cl.CommandQueue) -> cl.Event:
        event = self.move.enqueue(queue)
        _leave_to_system(event, self.pages, self.page, self.nbytes)
        return event


Bound = BoundKernel | BoundCopy | BoundPage | BoundMove


@dataclass(eq=False)
class BoundRegion:
    """Steps of a region bound to buffers; ``keep`` holds memory that kernels only point to.

    ``in_place`` are the numbers of the arguments that the host copies by itself.
    """

    steps: list[Bound]
    labels: list[Label]
    keep: list[cl.Buffer]
    in_place: Sequence[int] = ()

    def set_arguments(self) -> None:
        """Set the arguments of every kernel again, as engines do that build each launch anew."""
        for step in self.steps:
            step.set_arguments()

    def starters(self, queue: cl.CommandQueue) -> tuple[Start, ...]:
        """What enqueues each step; of kernels, which are most of them, no code of Python."""
        return tuple(
            step.starter(queue) if isinstance(step, BoundKernel) else partial(step.enqueue, queue)
            for step in self.steps
        )

    def then(self, other: BoundRegion) -> BoundRegion:
        """The steps of both, one after another."""
        return BoundRegion(
            self.steps + other.steps,
            self.labels + other.labels,
            self.keep + other.keep,
            other.in_place,
        )


def _leave_to_system(event: cl.Event, pages: Pages, page: int, nbytes: int) -> None:
    """Let go of a page in a file behind a transfer: it stays in the system's cache, or in storage.

    Who touches it again, even in the same moment, finds it there.
    """
    if pages.file is None:
        return
    memory = pages.memory[page : page + nbytes]
    event.set_callback(cl.command_execution_status.COMPLETE, lambda _status: let_go(memory))


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
