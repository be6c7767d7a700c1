"""Binaries of Intel's runtime for CPUs without what only its compiler reads.

Such a binary is an ELF file: the program as LLVM has it (``.ocl.ir``, most of the bytes), the CPU's
code (``.ocl.obj``) and what its kernels take (``.ocl.meta``). A process that loads it unfolds the
first to 15 to 20 times its size, runs the second, and keeps both. With the first replaced by that
of a program that does nothing, a loaded program takes 0.4 MiB instead of 0.4 to 3.2. Nothing
documents this: whoever makes such a binary must load it (in a process that may fail) before others
do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

NOTHING = "__kernel void nothing() {}"
"""Source of the program that does nothing."""
LARGE = 8 << 10
"""Bytes of a program as LLVM has it that are worth the replacement."""
IR, CODE = ".ocl.ir", ".ocl.obj"

_HEADER = struct.Struct("<4s2B10x 2HI 3Q I6H")
_SECTION = struct.Struct("<2I4Q2I2Q")


@dataclass(frozen=True)
class Section:
    """A section of a file: where its header and its ``size`` bytes are."""

    name: str
    header: int
    start: int
    size: int


def is_full(binary: bytes) -> bool:
    """Whether a binary has a large part that only a compiler reads, beside the code it became."""
    sizes = {section.name: section.size for section in _sections(binary)}
    return sizes.get(IR, 0) > LARGE and sizes.get(CODE, 0) > 0


def slimmed(binary: bytes, nothing: bytes) -> bytes:
    """A binary with the part for the compiler taken from that of the program :data:`NOTHING`.

    Raises:
        ValueError: one of them is no such file.
    """
    sections = _sections(binary)
    other = next((section for section in _sections(nothing) if section.name == IR), None)
    if other is None or all(section.name != IR for section in sections):
        raise ValueError(f"a binary without a section {IR}")
    result = bytearray(binary[: max(section.header for section in sections) + _SECTION.size])
    for section in sections:
        source, place = (nothing, other) if section.name == IR else (binary, section)
        # The loader wants sections one behind the other, in the order of their headers.
        struct.pack_into("<2Q", result, section.header + 24, len(result), place.size)
        result += source[place.start : place.start + place.size]
    return bytes(result)


def _sections(binary: bytes) -> list[Section]:
    """Sections of a little-endian ELF file of 64 bits; none if it is no such file."""
    if len(binary) < _HEADER.size or binary[:6] != b"\x7fELF\x02\x01":
        return []
    fields = _HEADER.unpack_from(binary)
    table, count, names_at = fields[8], fields[14], fields[15]
    if names_at >= count or table + count * _SECTION.size > len(binary):
        return []
    rows = [_SECTION.unpack_from(binary, table + i * _SECTION.size) for i in range(count)]
    start, size = rows[names_at][4:6]
    names = binary[start : start + size]
    return [
        Section(_text(names, row[0]), table + i * _SECTION.size, row[4], row[5])
        for i, row in enumerate(rows)
    ]


def _text(names: bytes, start: int) -> str:
    return names[start : names.find(b"\0", start)].decode(errors="replace")
