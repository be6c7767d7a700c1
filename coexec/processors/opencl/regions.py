"""The regions of one device: kernels bound to memory, constants, what is prepared from them."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence

import pyopencl as cl

from coexec.base.errors import ProcessorError
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
from coexec.processors.opencl.bound_sequence import SequenceBinder
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.byte_dots import check_dots
from coexec.processors.opencl.constants import DeviceConstants
from coexec.processors.opencl.executable import (
    ARENA,
    ARGUMENT,
    PAGE,
    CopyStep,
    OpenCLExecutable,
    PageStep,
    Slot,
    Step,
    slots_of,
)
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.sequences import SequencePlans, Sequences
from coexec.processors.opencl.sources import check_types

log = logging.getLogger(__name__)
Alloc = Callable[[int], OpenCLBuffer]
Transfers = Callable[[], cl.CommandQueue]


class _Memory:
    """The memory that slots mean, over the buffers of a region and its constants."""

    def __init__(self, buffers: Sequence[Buffer], constants: DeviceConstants) -> None:
        self.pages = [buffer for buffer in buffers if isinstance(buffer, Pages)]
        self.parts: dict[Slot, cl.Buffer] = {}
        self._buffers = [buffer.memory for buffer in buffers if isinstance(buffer, OpenCLBuffer)]
        self._constants = constants

    def of(self, slot: Slot) -> cl.Buffer:
        """The memory of a slot alone."""
        if slot.kind == PAGE:
            whole = self.pages[0].buffer
            assert isinstance(whole, OpenCLBuffer)
            return whole.memory.get_sub_region(slot.offset, slot.nbytes)
        if slot.kind == ARENA:
            if slot not in self.parts:
                arena = self._buffers[-1]
                self.parts[slot] = arena.get_sub_region(slot.offset, max(slot.nbytes, 1))
            return self.parts[slot]
        return self._buffers[slot.index] if slot.kind == ARGUMENT else self._constants.memory(slot)

    def block(self, slot: Slot) -> cl.Buffer:
        """The whole memory that a slot is in."""
        if slot.kind == ARENA:
            return self._buffers[-1]
        return self._buffers[slot.index] if slot.kind == ARGUMENT else self._constants.block(slot)


class BoundRegions:
    """Executables bound to buffers, each once, for as long as all of them are there."""

    def __init__(
        self, queue: cl.CommandQueue, programs: ProgramCache, sequences: SequencePlans
    ) -> None:
        self.queue = queue
        self.programs = programs
        self.sequences = sequences
        self._bound: dict[tuple[int, ...], BoundRegion] = {}
        self._constants: dict[int, DeviceConstants] = {}
        self._preparation: dict[int, BoundRegion] = {}

    def known(
        self, executable: Executable, buffers: Sequence[Buffer], each: bool = False
    ) -> BoundRegion | None:
        """A region that was bound, with a launch for ``each`` kernel or for sequences of them."""
        return self._bound.get(_key(executable, buffers, each))

    def build(self, executable: OpenCLExecutable) -> None:
        """Build the programs of an executable, without sequences if a driver refuses theirs."""
        check_types(self.programs.device, executable.programs)
        check_dots(self.programs, executable.programs)
        sequences = self.sequences.of(executable)
        try:
            self.programs.build(sequences.sources(executable))
        except ProcessorError as error:
            if not sequences.launches:
                raise
            log.warning("%s: every kernel is a launch: %s", self.queue.device.name, error)
            self.sequences.refuse(executable)
            self.programs.build(executable.programs)

    def bind(
        self,
        executable: OpenCLExecutable,
        buffers: Sequence[Buffer],
        alloc: Alloc,
        transfers: Transfers,
        each: bool = False,
    ) -> BoundRegion:
        """Create kernels with their arguments set.

        ``alloc`` gives memory for constants, ``transfers`` the queue beside that of kernels. With
        ``each``, kernels of a sequence are launched one by one; what computes is the same.
        """
        self.build(executable)
        sequences = self.sequences.of(executable)
        joined, programs = self._programs(executable, sequences)
        constants = self._upload(executable, programs, alloc)
        memory = _Memory(buffers, constants)
        binder = SequenceBinder(sequences, joined, memory.block, self.queue.device)
        launches = {launch.first: launch for launch in sequences.launches}
        bound: list[Bound] = []
        place = 0
        while place < len(executable.steps):
            launch = launches.get(place)
            if launch is None:
                bound.append(_bound(executable.steps[place], programs, memory, transfers))
            else:
                bound += binder.bind(launch, each)
            place += 1 if launch is None else launch.count
        labels = [step.label for step in executable.steps]
        in_place = [number for number, one in enumerate(buffers) if _in_place(one)]
        key = _key(executable, buffers, each)
        self._bound[key] = BoundRegion(bound, labels, [*memory.parts.values()], in_place)
        for owner in (executable, *buffers):
            weakref.finalize(owner, self._bound.pop, key, None)
        return self._bound[key]

    def memory_of(self, executable: Executable, buffers: Sequence[Buffer]) -> list[OpenCLBuffer]:
        """All that a bound executable computes on: its constants, and ``buffers`` of a device."""
        constants = self._constants[id(executable)].buffers
        return [*constants, *(each for each in buffers if isinstance(each, OpenCLBuffer))]

    def preparation(self, executable: Executable) -> BoundRegion | None:
        """Steps that have to run before the first of an executable, and did not yet."""
        return self._preparation.get(id(executable))

    def prepared(self, executable: Executable) -> None:
        """They were submitted: constants that only they read are let go."""
        del self._preparation[id(executable)]
        self._constants[id(executable)].release()

    def _programs(
        self, executable: OpenCLExecutable, sequences: Sequences
    ) -> tuple[list[cl.Program], dict[int, cl.Program]]:
        """Programs of sequences, and those of the kernels that are in none by their numbers."""
        built = self.programs.build(sequences.sources(executable))
        count = len(sequences.programs)
        return built[:count], dict(zip(sorted(sequences.alone), built[count:], strict=True))

    def _upload(
        self, executable: OpenCLExecutable, programs: Mapping[int, cl.Program], alloc: Alloc
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


def _bound(
    step: Step, programs: Mapping[int, cl.Program], memory: _Memory, transfers: Transfers
) -> Bound:
    """A step that is a launch, a copy or a transfer of its own."""
    if isinstance(step, PageStep):
        tensor = None if step.tensor is None else memory.of(step.tensor)
        return BoundPage(step, memory.pages[0], tensor, transfers())
    bound: BoundCopy | BoundKernel
    if isinstance(step, CopyStep):
        bound = BoundCopy(memory.of(step.dst), memory.of(step.src), step.nbytes)
    else:
        bound = bind_kernel(step, programs[step.program], memory.of)
    page = next((slot for slot in slots_of(step) if slot.kind == PAGE), None)
    return BoundMove(bound, memory.pages[0], page.offset, page.nbytes) if page else bound


def _key(executable: Executable, buffers: Sequence[Buffer], each: bool) -> tuple[int, ...]:
    """What a region is bound by: objects that are there for as long as it is."""
    return (each, id(executable), *map(id, buffers))


def _in_place(buffer: Buffer) -> bool:
    return isinstance(buffer, OpenCLBuffer) and buffer.in_place is not None
