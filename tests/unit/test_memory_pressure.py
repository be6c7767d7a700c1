"""Pressure on the memory of a machine: how it is read, and what budget it leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from coexec.base.errors import UsageError
from coexec.budget.pressure import Pressure, PressureWatch, read_pressure

MEMINFO = "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n"
STALLS = """some avg10=12.50 avg60=1.00 avg300=0.00 total=99
full avg10=3.00 avg60=0.00 avg300=0.00 total=9
"""


def test_what_is_available_and_how_long_tasks_waited_is_read(tmp_path: Path) -> None:
    meminfo, stalls = tmp_path / "meminfo", tmp_path / "memory"
    meminfo.write_text(MEMINFO)
    assert read_pressure(meminfo, stalls) == Pressure(1_024_000, 0.0)
    stalls.write_text(STALLS)
    assert read_pressure(meminfo, stalls) == Pressure(1_024_000, 12.5)
    with pytest.raises(UsageError, match="does not tell how much memory"):
        read_pressure(tmp_path / "none", stalls)


@pytest.mark.parametrize(
    ("pressure", "budget"),
    [
        (Pressure(1000, 0.0), None),
        (Pressure(1000, 10.0), None),
        (Pressure(1000, 10.5), 750),  # tasks wait: a quarter less
        (Pressure(999, 0.0), 750),
        (Pressure(600, 0.0), 600),  # 400 bytes are missing
        (Pressure(0, 0.0), 1),
    ],
)
def test_budgets_fall_by_what_is_missing(pressure: Pressure, budget: int | None) -> None:
    watch = PressureWatch(lambda: pressure, lambda: 0.0, least_available=1000)
    found = watch.look(1000)
    assert (found and found[0]) == budget


def test_it_looks_only_now_and_then() -> None:
    times = iter([0.0, 1.9, 2.0])
    looks: list[Pressure] = []

    def probe() -> Pressure:
        looks.append(Pressure(0, 0.0))
        return looks[-1]

    watch = PressureWatch(probe, lambda: next(times))
    assert [watch.look(8) is None for _ in range(3)] == [False, True, False]
    assert len(looks) == 2
