"""What an executable keeps on a device for all its runs: its constants, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyopencl as cl

from coexec.base.errors import DeviceMemoryError
from coexec.base.pages import let_go
from coexec.base.units import bytes_text
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import PREPARED, OpenCLExecutable, Slot


@dataclass
class DeviceConstants:
    """Constants of an executable on a device, and the memory of what is prepared from them.

    ``sources`` are the constants that only the preparation reads: :meth:`release` lets them go.
    """

    resident: dict[str, OpenCLBuffer]
    sources: dict[str, OpenCLBuffer]
    prepared: OpenCLBuffer | None
    _blocks: dict[Slot, cl.Buffer] = field(default_factory=dict)

    @classmethod
    def upload(
        cls,
        executable: OpenCLExecutable,
        queue: cl.CommandQueue,
        alloc: Callable[[int], OpenCLBuffer],
    ) -> DeviceConstants:
        """Copy all constants to the device, with memory for what is prepared.

        Raises:
            DeviceMemoryError: they do not fit; the message says how much they take.
        """

        def copies(names: Iterable[str]) -> dict[str, OpenCLBuffer]:
            uploaded: dict[str, OpenCLBuffer] = {}
            for name in names:
                array = executable.constants[name]
                uploaded[name] = alloc(array.nbytes)
                if array.nbytes:
                    # What is ahead in the queue may wait for another thread of this interpreter: a
                    # blocking copy would keep its lock meanwhile, waiting for an event does not.
                    cl.enqueue_copy(
                        queue,
                        uploaded[name].memory,
                        np.ascontiguousarray(array),
                        is_blocking=False,
                    ).wait()
                    let_go(array)
            return uploaded

        resident = executable.resident
        try:
            prepared = alloc(executable.prepared_bytes) if executable.prepared_bytes else None
            return cls(
                copies(sorted(resident)),
                copies(sorted(executable.constants.keys() - resident)),
                prepared,
            )
        except DeviceMemoryError as error:
            raise DeviceMemoryError(f"{error}. {_wanted(executable)}") from error

    @property
    def buffers(self) -> list[OpenCLBuffer]:
        """What stays for all runs."""
        return [*self.resident.values(), *([self.prepared] if self.prepared else [])]

    def memory(self, slot: Slot) -> cl.Buffer:
        """Where a constant or prepared slot lives."""
        if slot.kind != PREPARED:
            return (self.resident.get(slot.name) or self.sources[slot.name]).memory
        assert self.prepared is not None
        if slot not in self._blocks:
            nbytes = max(slot.nbytes, 1)
            self._blocks[slot] = self.prepared.memory.get_sub_region(slot.offset, nbytes)
        return self._blocks[slot]

    def block(self, slot: Slot) -> cl.Buffer:
        """The whole memory that a constant or prepared slot is in."""
        if slot.kind != PREPARED:
            return self.memory(slot)
        assert self.prepared is not None
        return self.prepared.memory

    def release(self) -> None:
        """Give the memory of the sources back; kernels that were started may still read it."""
        self.sources.clear()


def _wanted(executable: OpenCLExecutable) -> str:
    """What constants take, in words."""
    all_bytes = sum(array.nbytes for array in executable.constants.values())
    name, largest = max(executable.constants.items(), key=lambda item: item[1].nbytes)
    prepared = bytes_text(executable.prepared_bytes)
    return (
        f"Its constants take {bytes_text(all_bytes)} ({name}: {bytes_text(largest.nbytes)}), and "
        f"{prepared} more rearranged for kernels, until the first run has made them"
    )
