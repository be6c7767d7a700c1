"""Plans by costs that a test makes up: nothing that this machine measured decides them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from coexec.core.machine import Machine, Rates
from coexec.cost.store import CostStore

Limits = Callable[[str], Rates]
"""Rates of a processor by its name."""

QUICK = Rates({"float32": 60.0}, 20.0, 3.0, 5.0)
SLOW = Rates({"float32": 1.0}, 1.0, 1.0, 1.0)


def know(monkeypatch: pytest.MonkeyPatch, folder: Path, limits: Limits) -> None:
    """Processors have these limits, and no times but those measured since, kept in ``folder``."""

    def machine_rates(specs: Sequence[str], observe: object = None) -> Machine:
        return Machine("made up", "2026-01-01", {spec: limits(spec) for spec in specs})

    monkeypatch.setattr("coexec.processor_costs.machine_rates", machine_rates)
    monkeypatch.setattr("coexec.processor_costs.CostStore", partial(CostStore, folder=folder))


def numpy_last(spec: str) -> Rates:
    """Limits with which NumPy, which takes all cores, is never the fastest."""
    return SLOW if spec == "reference" else QUICK
