"""What is measured: cases, and suites of them. Plain data that every peer understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEST, MEDIAN = "best", "median"
"""Which time of a peer's calls counts."""

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}
"""For single operators: peers that allocate each result anew take it from memory that the process
has already, instead of having the system clear pages in every call."""


SHORT_SECONDS = 5e-3
"""Calls that take less vary most: much of them is what hands them over and wakes threads."""


@dataclass(frozen=True)
class Case:
    """One piece of work. ``kind`` names it for the peers, ``spec`` (JSON values) describes it.

    ``flop`` counts a multiply-add as 2; ``bytes`` is the least that must move: every operand read
    once and every result written once. Summaries are over all cases of a ``group``.
    """

    name: str
    kind: str
    spec: Mapping[str, Any]
    group: str = ""
    flop: int = 0
    bytes: int = 0
    quick: bool = False
    beside: bool = False
    """Others compute beside it on purpose."""


Files = Callable[[Case, Path], Mapping[str, str]]
"""Writes what a case needs into a folder; returns the paths by their names in the case's spec."""


@dataclass(frozen=True)
class Suite:
    """Cases with how they are timed.

    A turn of a peer takes ``seconds`` or one call; ``pause`` seconds pass between turns, so that
    threads that spin come to rest. ``tolerance`` bounds how far results may lie apart, relative to
    the largest magnitude among them; ``half_tolerance`` is that of 16 bits. ``fresh``: every case
    has processes of its own. ``roof`` says which measured limit of the device a row is held
    against: ``flop``, ``bytes`` or none.
    ``minutes`` is what a full run may take on two cores; cases share it by their work.
    ``environment`` is given to all workers. ``alone``: it is no part of ``all``, it takes its time.
    Where time is up, ``fewest`` turns are taken nevertheless: one figure has no spread. Of cases
    all of whose calls take less than ``SHORT_SECONDS`` there are ``short`` times as many turns.
    ``repeats`` so many turns, at most, during which other processes computed.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    statistic: str = MEDIAN
    tolerance: float = 1e-3
    half_tolerance: float = 5e-2
    minutes: float = 1.0
    seconds: float = 0.05
    turns: int = 5
    pause: float = 0.05
    fresh: bool = False
    roof: str = ""
    files: Files | None = field(default=None, compare=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    fewest: int = 2
    short: int = 1
    repeats: int = 0

    def chosen(self, quick: bool, pattern: str = "") -> tuple[Case, ...]:
        """Cases whose name contains ``pattern``; of those only the ``quick`` ones, if wanted."""
        return tuple(c for c in self.cases if pattern in c.name and (c.quick or not quick))
