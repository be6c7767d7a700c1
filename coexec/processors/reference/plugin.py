"""The reference processor is always there."""

from __future__ import annotations

from coexec.core.processor import Candidate, Processor
from coexec.processors.reference.processor import ReferenceProcessor


def candidates() -> list[Candidate]:
    """The one reference processor."""
    return [Candidate("reference", ReferenceProcessor().describe())]


def open_device(_name: str) -> Processor:
    """Open it."""
    return ReferenceProcessor()
