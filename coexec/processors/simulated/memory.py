"""The memory of a phone: what is left of it, what paging costs, and where the wall is."""

from __future__ import annotations

from coexec.base.errors import ProcessorError
from coexec.base.units import bytes_text

SWAP_SHARE = 0.25
"""Compressed swap (zram) as a share of what a process may have: assumed, as Android ships it."""
SWAP_GBPS = 1.0
"""Compressing and decompressing pages: assumed, of the order of LZ4 on one core."""


class PhoneMemory:
    """Bytes that are allocated of those that are free; beyond them, pages are swapped.

    Without ``walled``, more than there is can be allocated: whoever says so compares
    ``allocated_bytes`` with :attr:`wall_bytes`.
    """

    def __init__(self, free_bytes: int, walled: bool = True) -> None:
        self.free_bytes = free_bytes
        self.walled = walled
        self.allocated_bytes = 0

    @property
    def wall_bytes(self) -> int:
        """More than this cannot be had at all."""
        return int(self.free_bytes * (1 + SWAP_SHARE))

    @property
    def swaps(self) -> bool:
        """Whether more is allocated than is free."""
        return self.allocated_bytes > self.free_bytes

    def take(self, nbytes: int) -> None:
        """Allocate.

        Raises:
            ProcessorError: it is behind the wall; the message says by how much.
        """
        wanted = self.allocated_bytes + nbytes
        if self.walled and wanted > self.wall_bytes:
            raise ProcessorError(
                f"{bytes_text(nbytes)} more do not fit the phone's memory: "
                f"{bytes_text(wanted)} are wanted, {bytes_text(self.free_bytes)} free with "
                f"{bytes_text(self.wall_bytes - self.free_bytes)} of swap: "
                f"{bytes_text(wanted - self.wall_bytes)} too much"
            )
        self.allocated_bytes = wanted

    def give_back(self, nbytes: int) -> None:
        """Free."""
        self.allocated_bytes -= nbytes

    def paging_us(self, touched_bytes: int) -> float:
        """Time for swapping when work touches so many of the allocated bytes.

        The share of all memory that does not fit is out at any time: so much of what is touched
        comes in, and as much goes out.
        """
        excess = self.allocated_bytes - self.free_bytes
        if excess <= 0:
            return 0.0
        share = excess / self.allocated_bytes
        return 2 * share * touched_bytes / (SWAP_GBPS * 1e3)
