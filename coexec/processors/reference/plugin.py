"""The reference processor is always there."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.base.errors import ProcessorError
from coexec.core.device_memory import MEMORY
from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.processors.reference.measure import measure as measure_numpy
from coexec.processors.reference.processor import ReferenceProcessor


def candidates() -> list[Candidate]:
    """The one reference processor."""
    return [Candidate("reference", ReferenceProcessor().describe())]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open it, with a limit of its memory if there is an option ``memory=64MiB``.

    Raises:
        ProcessorError: another option, or no amount of memory.
    """
    unknown = [option for option in options if option != MEMORY]
    if unknown:
        raise ProcessorError(
            f"processor {name!r} has no option {unknown[0]}; known: {MEMORY}=BYTES"
        )
    return ReferenceProcessor(options.get(MEMORY, ""))


def measure(_name: str, _options: Mapping[str, str]) -> Rates:
    """Measured limits of NumPy on this host."""
    return measure_numpy()
