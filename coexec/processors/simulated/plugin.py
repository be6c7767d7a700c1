"""Simulated phones: every chip of the package, by name."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.base.errors import ProcessorError, UsageError
from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.core.soc_file import find_soc, soc_names
from coexec.processors.simulated.options import SimulatedOptions, parse_options
from coexec.processors.simulated.phone import shared_phone
from coexec.processors.simulated.pricing import Pricing
from coexec.processors.simulated.processor import SimulatedProcessor


def candidates() -> list[Candidate]:
    """One line: simulated phones are not of this machine, and have to be named."""
    known = ", ".join(soc_names())
    reason = f"a simulated phone has to be named, as sim:{soc_names()[0]}/gpu; known: {known}"
    return [Candidate("sim", None, reason)]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open a processor of a phone; those with the same condition and seed share one simulation.

    Raises:
        ProcessorError: unknown chip, processor or option; the known ones are listed.
    """
    soc, processor, chosen = _parse(name, options)
    return SimulatedProcessor(shared_phone(soc, chosen.condition, chosen.seed), processor, chosen)


def measure(name: str, options: Mapping[str, str]) -> Rates:
    """Nominal limits: there is nothing to measure."""
    soc, processor, chosen = _parse(name, options)
    return Pricing(find_soc(soc), processor, chosen).rates()


def _parse(name: str, options: Mapping[str, str]) -> tuple[str, str, SimulatedOptions]:
    soc, separator, processor = name.partition(":")[2].partition("/")
    if not (separator and processor):
        raise ProcessorError(
            f"processor {name!r}: write sim:<phone>/<processor>, as sim:{soc_names()[0]}/gpu; "
            f"known phones: {', '.join(soc_names())}"
        )
    try:
        found = find_soc(soc)
    except UsageError as error:
        raise ProcessorError(f"processor {name!r}: {error}") from error
    kind = processor.partition(":")[0]
    if kind not in found.processors:
        known = ", ".join(found.processors)
        raise ProcessorError(f"processor {name!r}: {found.title} has {known}, no {processor!r}")
    return found.name, processor, parse_options(name, options)
