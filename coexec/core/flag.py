"""Flags: numbers in memory of the host by which one processor tells another that work is done.

A number only grows, and wraps around at 32 bits. Who waits reads it until it is high enough: that
takes microseconds, where a callback and a thread that wakes take a tenth of a millisecond and more
(measured on a virtual machine). Reading keeps the reader's own core busy, so that only
processors on cores of their own follow each other so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coexec.base.pages import PAGE, page_aligned
from coexec.core.types import Array

WRAP = 1 << 32


@dataclass(frozen=True, eq=False)
class Flag:
    """A number in ``memory`` (a page) that a processor of ``driver`` on ``silicon`` raises."""

    memory: Array
    driver: str
    silicon: frozenset[str]


@dataclass(frozen=True)
class Raised:
    """The moment at which ``flag`` gets to ``number``."""

    flag: Flag
    number: int


def flag_page() -> Array:
    """Memory for a flag that nobody has raised."""
    memory = page_aligned(PAGE)
    memory[:] = 0
    return memory


def signed(number: int) -> int:
    """A number as the 32 bits that a flag has of it."""
    return (number + WRAP // 2) % WRAP - WRAP // 2


def number_in(page: Array) -> Array:
    """The number in a flag's memory, as an array without axes."""
    return page[:4].view(np.int32).reshape(())
