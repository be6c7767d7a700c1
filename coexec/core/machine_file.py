"""A machine as a TOML file: rates measured here or published elsewhere, readable by people.

::

    name = "laptop"
    date = "2026-01-31"

    [processors."opencl:pocl"]
    driver = "Portable Computing Language 3.0"
    bandwidth_gbps = 46.1
    launch_us = 1.1
    sync_us = 17.0
    peak_gflops = { float32 = 350.0, float64 = 170.0 }
    links = { write = { latency_us = 17.5, gbps = 28.5 } }
    silicon = { kind = "cpu", compute_units = 2, memory_bytes = 17179869184, unified_memory = true }
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from coexec.base.disk import write_atomically
from coexec.core.machine import Link, Machine, Rates, Silicon
from coexec.core.toml_table import TomlTable

KINDS = ("cpu", "gpu", "npu")
DIGITS = 4
"""Significant digits written: measurements are not better."""


def write_machine(machine: Machine, path: Path) -> None:
    """Write ``machine`` as TOML, atomically.

    Raises:
        SaveError: the file cannot be written.
    """
    data = machine_toml(machine)
    write_atomically(path, lambda file: file.write(data))


def machine_toml(machine: Machine) -> bytes:
    """The file's content."""
    document = {
        "name": machine.name,
        "date": machine.date,
        "processors": {name: _document(rates) for name, rates in machine.processors.items()},
    }
    return tomli_w.dumps(document).encode()


def is_machine(path: Path) -> bool:
    """Whether a file has measured rates (and no figures of a chip).

    Raises:
        UsageError: unreadable or not TOML.
    """
    return "processors" in TomlTable.of_file(path).values


def read_machine(path: Path) -> Machine:
    """The machine of a file that :func:`write_machine` or a person wrote.

    Raises:
        UsageError: unreadable, not TOML, or a key that is missing, unknown or impossible; the
            message names the key.
    """
    table = TomlTable.of_file(path)
    machine = Machine(
        name=table.text("name"),
        date=table.text("date"),
        processors={name: _rates(each) for name, each in table.tables("processors").items()},
    )
    table.nothing_else()
    return machine


def _rates(table: TomlTable) -> Rates:
    peaks = table.table("peak_gflops")
    rates = Rates(
        peak_gflops={name: peaks.number(name, above_zero=True) for name in peaks.values},
        bandwidth_gbps=table.number("bandwidth_gbps", above_zero=True),
        launch_us=table.number("launch_us"),
        sync_us=table.number("sync_us"),
        links={name: _link(each) for name, each in table.tables("links").items()},
        driver=table.text("driver"),
        silicon=_silicon(table),
    )
    if "float32" not in rates.peak_gflops:
        raise peaks.error("float32", "is missing")
    table.nothing_else()
    return rates


def _silicon(rates: TomlTable) -> Silicon | None:
    rates.seen.add("silicon")
    if "silicon" not in rates.values:
        return None
    table = rates.table("silicon")
    kind = table.text("kind")
    if kind not in KINDS:
        raise table.error("kind", f"is {kind!r}; one of {', '.join(KINDS)} is wanted")
    found = Silicon(
        kind,
        int(table.number("compute_units")),
        int(table.number("memory_bytes")),
        table.truth("unified_memory"),
    )
    table.nothing_else()
    return found


def _link(table: TomlTable) -> Link:
    link = Link(table.number("latency_us"), table.number("gbps", above_zero=True))
    table.nothing_else()
    return link


def _document(rates: Rates) -> dict[str, Any]:
    known = {} if rates.silicon is None else {"silicon": vars(rates.silicon)}
    return {
        "driver": rates.driver,
        "bandwidth_gbps": _rounded(rates.bandwidth_gbps),
        "launch_us": _rounded(rates.launch_us),
        "sync_us": _rounded(rates.sync_us),
        "peak_gflops": {name: _rounded(value) for name, value in rates.peak_gflops.items()},
        "links": {
            name: {"latency_us": _rounded(link.latency_us), "gbps": _rounded(link.gbps)}
            for name, link in rates.links.items()
        },
        **known,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
