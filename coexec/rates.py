"""Measured rates of processors, kept on disk: a machine is measured once per driver."""

from __future__ import annotations

import hashlib
import logging
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from coexec.base.cache import keep
from coexec.base.cpu import cpu_identity
from coexec.base.errors import UsageError
from coexec.base.knobs import cache_dir
from coexec.core.machine import Machine, Rates, Silicon
from coexec.core.machine_file import machine_toml, read_machine
from coexec.core.processor import ProcessorSpec
from coexec.core.timeline import timeline_of
from coexec.processors.find import measure_processor, open_processor

log = logging.getLogger(__name__)
HERE = platform.node() or "this machine"
FORMAT = 3
"""Changes when what is measured changes: older files in the cache are left alone."""

Observer = Callable[[str], None]


def machine_rates(
    specs: Sequence[str], refresh: bool = False, observe: Observer | None = None
) -> Machine:
    """Rates of the processors that ``specs`` mean, by their full names (options included).

    What was measured before on the same device with the same driver is read from the cache unless
    ``refresh``. ``observe`` is told the name of each processor that is about to be measured. The
    date is the oldest of the measurements. Limits of simulated processors are nominal: they follow
    the description of the phone and the options, and are not kept.

    Raises:
        ProcessorError: a spec is unknown or its device absent.
    """
    rates: dict[str, Rates] = {}
    dates: list[str] = []
    for spec in dict.fromkeys(specs):
        processor = open_processor(spec)
        described = processor.describe()
        if timeline_of(processor) is not None:
            rates[described.name] = measure_processor(described.name)
            continue
        base = described.name.partition("?")[0]
        known = None if refresh else _read(described, base)
        if known is None:
            if observe is not None:
                observe(base)
            known = Machine(HERE, _now(), {base: measure_processor(described.name)})
            _keep(known, described, base)
        rates[described.name] = replace(known.processors[base], silicon=_silicon(described))
        dates.append(known.date)
    return Machine(HERE, min(dates, default=_now()), rates)


def _silicon(described: ProcessorSpec) -> Silicon:
    return Silicon(
        described.kind,
        described.compute_units,
        described.memory_bytes,
        described.unified_memory,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _file(described: ProcessorSpec, base: str) -> Path:
    facts = (cpu_identity(), described.device, described.driver, str(described.compute_units))
    identity = "\n".join((str(FORMAT), *facts))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    stem = re.sub(r"[^a-z0-9]+", "-", base.lower())
    return cache_dir() / "machines" / f"{stem}-{digest}.toml"


def _read(described: ProcessorSpec, base: str) -> Machine | None:
    """What the cache has; a damaged file is measured again."""
    file = _file(described, base)
    if not file.exists():
        return None
    try:
        machine = read_machine(file)
    except UsageError as error:
        log.warning("measuring %s again: %s", base, error)
        return None
    return machine if base in machine.processors else None


def _keep(machine: Machine, described: ProcessorSpec, base: str) -> None:
    data = machine_toml(machine)
    keep(_file(described, base), lambda file: file.write(data))
