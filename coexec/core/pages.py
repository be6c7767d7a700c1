"""Memory outside of a device, for tensors that leave it while nobody reads them."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from coexec.base.errors import DeviceMemoryError
from coexec.base.pages import page_aligned
from coexec.base.units import bytes_text
from coexec.core.processor import Buffer
from coexec.core.types import Array


@dataclass(frozen=True)
class PageLink:
    """The way out of the device and back, and what it is (``to``: host memory, storage).

    A transfer takes ``latency_us`` and so much per byte. One that is not ``beside`` computing is
    made between two kernels: the way back is waited for; what leaves is in a cache of the system
    first, which goes on to write it. ``load`` is the part of the processor that a transfer takes.
    """

    to: str
    out_us_per_byte: float
    in_us_per_byte: float
    latency_us: float = 0.0
    load: float = 0.0
    beside: bool = True

    def out_us(self, nbytes: int) -> float:
        """Time of a transfer from the device."""
        return self.latency_us + nbytes * self.out_us_per_byte

    def in_us(self, nbytes: int) -> float:
        """Time of a transfer to the device."""
        return self.latency_us + nbytes * self.in_us_per_byte


@dataclass(frozen=True)
class Page:
    """An activation that leaves the device behind its last reader of the forward pass.

    Behind node ``gone`` its memory is free; before node ``fetched`` it starts to come back.
    ``wait_us`` is what a step loses to that by the times.
    """

    tensor: str
    gone: str
    fetched: str
    wait_us: float


class Pages(Buffer):
    """Memory of the host, or of a file where the device's memory is the host's.

    ``memory`` are its bytes, ``buffer`` the same for kernels that move tensors themselves;
    ``under_way`` are transfers by direction and offset, as the device knows them.
    """

    def __init__(self, nbytes: int, file: PageFile | None = None) -> None:
        self.nbytes = nbytes
        self.file = file
        self.memory: Array = page_aligned(nbytes) if file is None else file.memory
        self.buffer: Buffer | None = None
        self.under_way: dict[tuple[str, int], Any] = {}


class PageFile:
    """A file without a name, mapped: it is gone with the process, whatever ends that.

    All of it is there from the beginning, so that a full disk is an error here and not a signal in
    the middle of a step. What lies in it is in the system's cache until that writes it to storage,
    which it does by itself where memory is short; :meth:`to_storage` makes it so now.

    Raises:
        DeviceMemoryError: ``folder`` cannot be written, or has no room.
    """

    def __init__(self, nbytes: int, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  as long as the pages
            _reserve(self._file.fileno(), nbytes)
            self._map = mmap.mmap(self._file.fileno(), nbytes)
        except OSError as error:
            raise DeviceMemoryError(
                f"{folder}: no room for {bytes_text(nbytes)} of pages "
                f"({error.strerror or error}); free some, let COEXEC_CACHE_DIR name a folder with "
                "room, or leave paging out"
            ) from error
        self.memory: Array = np.frombuffer(self._map, np.uint8)
        weakref.finalize(self, self._file.close)

    def to_storage(self) -> None:
        """Write what is only in the system's cache, and let that go."""
        self._map.flush()
        if hasattr(os, "posix_fadvise") and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _reserve(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.truncate(descriptor, nbytes)
