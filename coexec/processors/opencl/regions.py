"""The regions of one device: kernels bound to memory, constants, what is prepared from them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import pyopencl as cl

from coexec.core.pages import Pages
from coexec.core.processor import Buffer, Executable
from coexec.processors.opencl.bound import (
    Bound,
    BoundCopy,
    BoundKernel,
    BoundMove,
    BoundPage,
    BoundRegion,
    bind_kernel,
)
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.constants import DeviceConstants
from coexec.processors.opencl.executable import (
    ARENA,
    ARGUMENT,
    PAGE,
    CopyStep,
    KernelStep,
    OpenCLExecutable,
    PageStep,
    Slot,
    Step,
    slots_of,
)
from coexec.processors.opencl.programs import ProgramCache

Alloc = Callable[[int], OpenCLBuffer]
Transfers = Callable[[], cl.CommandQueue]


class BoundRegions:
    """Executables bound to buffers, each once, for as long as all of them are there."""

    def __init__(self, queue: cl.CommandQueue, programs: ProgramCache) -> None:
        self.queue = queue
        self.programs = programs
        self._bound: dict[tuple[int, ...], BoundRegion] = {}
        self._constants: dict[int, DeviceConstants] = {}
        self._preparation: dict[int, BoundRegion] = {}

    def known(self, executable: Executable, buffers: Sequence[Buffer]) -> BoundRegion | None:
        """A region that was bound."""
        return self._bound.get(_key(executable, buffers))

    def bind(
        self,
        executable: OpenCLExecutable,
        buffers: Sequence[Buffer],
        alloc: Alloc,
        transfers: Transfers,
    ) -> BoundRegion:
        """Create kernels with their arguments set.

        ``alloc`` gives memory for constants, ``transfers`` the queue beside that of kernels.
        """
        programs = self.programs.build(executable.programs)
        memories = [buffer.memory for buffer in buffers if isinstance(buffer, OpenCLBuffer)]
        pages = [buffer for buffer in buffers if isinstance(buffer, Pages)]
        constants = self._upload(executable, programs, alloc)
        slots: dict[Slot, cl.Buffer] = {}

        def resolve(slot: Slot) -> cl.Buffer:
            if slot.kind == ARGUMENT:
                return memories[slot.index]
            if slot.kind == PAGE:
                whole = pages[0].buffer
                assert isinstance(whole, OpenCLBuffer)
                return whole.memory.get_sub_region(slot.offset, slot.nbytes)
            if slot.kind == ARENA:
                if slot not in slots:
                    slots[slot] = memories[-1].get_sub_region(slot.offset, max(slot.nbytes, 1))
                return slots[slot]
            return constants.memory(slot)

        def bind(step: Step) -> Bound:
            if isinstance(step, PageStep):
                tensor = None if step.tensor is None else resolve(step.tensor)
                return BoundPage(step, pages[0], tensor, transfers())
            bound = simple(step)
            page = next((slot for slot in slots_of(step) if slot.kind == PAGE), None)
            return BoundMove(bound, pages[0], page.offset, page.nbytes) if page else bound

        def simple(step: KernelStep | CopyStep) -> BoundKernel | BoundCopy:
            if isinstance(step, CopyStep):
                return BoundCopy(resolve(step.dst), resolve(step.src), step.nbytes)
            return bind_kernel(step, programs[step.program], resolve)

        bound = [bind(step) for step in executable.steps]
        labels = [step.label for step in executable.steps]
        in_place = [number for number, each in enumerate(buffers) if _in_place(each)]
        key = _key(executable, buffers)
        self._bound[key] = BoundRegion(bound, labels, [*slots.values()], in_place)
        for owner in (executable, *buffers):
            weakref.finalize(owner, self._bound.pop, key, None)
        return self._bound[key]

    def preparation(self, executable: Executable) -> BoundRegion | None:
        """Steps that have to run before the first of an executable, and did not yet."""
        return self._preparation.get(id(executable))

    def prepared(self, executable: Executable) -> None:
        """They were submitted: constants that only they read are let go."""
        del self._preparation[id(executable)]
        self._constants[id(executable)].release()

    def _upload(
        self, executable: OpenCLExecutable, programs: Sequence[cl.Program], alloc: Alloc
    ) -> DeviceConstants:
        """Constants of an executable, once; their preparation is left for the first launch."""
        key = id(executable)
        if key not in self._constants:
            constants = DeviceConstants.upload(executable, self.queue, alloc)
            self._constants[key] = constants
            weakref.finalize(executable, self._constants.pop, key, None)
            if executable.preparation:
                steps = [
                    bind_kernel(step, programs[step.program], constants.memory)
                    for step in executable.preparation
                ]
                labels = [step.label for step in executable.preparation]
                self._preparation[key] = BoundRegion([*steps], labels, [])
                weakref.finalize(executable, self._preparation.pop, key, None)
        return self._constants[key]


def _key(executable: Executable, buffers: Sequence[Buffer]) -> tuple[int, ...]:
    """What a region is bound by: objects that are there for as long as it is."""
    return (id(executable), *map(id, buffers))


def _in_place(buffer: Buffer) -> bool:
    return isinstance(buffer, OpenCLBuffer) and buffer.in_place is not None
