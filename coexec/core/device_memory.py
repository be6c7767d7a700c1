"""How much memory of a processor is in use, and the limit that allocations may not exceed."""

from __future__ import annotations

from coexec.base.errors import DeviceMemoryError, ProcessorError
from coexec.base.units import bytes_text, parse_bytes

MEMORY = "memory"
"""Option of a processor: ``opencl:intel?memory=64MiB``."""


class DeviceMemory:
    """Bytes that are allocated on processor ``owner``; with ``limit_bytes``, never more than that.

    ``peak_bytes`` is the most that ever was.
    """

    def __init__(self, owner: str, limit_bytes: int = 0) -> None:
        self.owner = owner
        self.limit_bytes = limit_bytes
        self.allocated_bytes = 0
        self.peak_bytes = 0

    def take(self, nbytes: int) -> None:
        """Count an allocation.

        Raises:
            DeviceMemoryError: it does not fit the limit; nothing is counted.
        """
        if self.limit_bytes and self.allocated_bytes + nbytes > self.limit_bytes:
            raise DeviceMemoryError(
                f"{self.owner}: {bytes_text(nbytes)} more do not fit the limit of "
                f"{bytes_text(self.limit_bytes)}: {bytes_text(self.allocated_bytes)} are in use"
            )
        self.allocated_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)

    def give_back(self, nbytes: int) -> None:
        """Count what is free again."""
        self.allocated_bytes -= nbytes


def limit_of(spec: str, text: str) -> int:
    """Bytes of an option ``memory=64MiB``; none: 0.

    Raises:
        ProcessorError: no amount of memory.
    """
    if not text:
        return 0
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ProcessorError(f"processor {spec!r}: {MEMORY}={text}: {error}") from error
