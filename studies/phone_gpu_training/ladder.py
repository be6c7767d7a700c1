"""The rungs between "like a stock mobile engine" and coexec's default, one remedy at a time.

Every rung is a set of ordinary options of coexec: nothing here is written for the study alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from coexec.runtime.mode import ExecutionMode


@dataclass(frozen=True)
class Rung:
    """``options`` are those of the processor spec."""

    name: str
    remedy: str
    options: str
    mode: ExecutionMode


STOCK = ExecutionMode(residency="host", synchronise="operator")
LADDER = (
    Rung("0 naive", "none", "?kernels=naive&bind=each", STOCK),
    Rung("1 stock", "tuned kernels, as stock engines ship them", "?bind=each", STOCK),
    Rung("2 map", "mapped instead of copied transfers", "?transfer=map&bind=each", STOCK),
    Rung(
        "3 resident",
        "tensors stay on the device",
        "?transfer=map&bind=each",
        ExecutionMode(synchronise="operator"),
    ),
    Rung("4 one sync", "wait once a step", "?transfer=map&bind=each", ExecutionMode()),
    Rung("5 default", "arguments bound once, driver copies", "", ExecutionMode()),
)
"""The first real rung is 1: stock engines have tuned kernels. 0 is the study's own experiment: the
same engine with kernels of one work-item per output."""
