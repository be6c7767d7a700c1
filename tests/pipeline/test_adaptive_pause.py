"""When another plan is made in the background, and that it does not begin too early."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from coexec.planning.adapter import Proposal
from tests.pipeline.test_adaptive import agrees, build, feeds_of, steps_of, two


def test_another_plan_is_made_once_a_change_has_lasted_as_long_as_that_took_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then the steps have the cores for themselves."""
    processors = two()
    trainer = build(processors, alone=("a", "b"))
    adapter, held = trainer._adapter, threading.Event()
    prepare, plan = adapter.prepare, adapter.planner

    def late(*arguments: Any) -> Any:
        held.wait()
        return prepare(*arguments)

    monkeypatch.setattr(adapter, "prepare", late)
    losses = [trainer.step(*feeds_of(step)) for step in range(21)]
    held.set()
    losses += steps_of(trainer, 21, 60)
    assert trainer.is_steady
    planned: list[int] = []

    def noted(factors: Mapping[str, float]) -> Proposal:
        planned.append(trainer.steps)
        return plan(factors)

    monkeypatch.setattr(adapter, "planner", noted)
    processors["b"].slow = 3.0
    losses += steps_of(trainer, 60, 90)
    noticed = next(each for each in trainer.adaptations if each.kind == "noticed")
    # As long as 20 steps took before, when no processor was slower.
    assert [step - noticed.step for step in planned] == [pytest.approx(12, abs=2)]
    agrees(trainer, losses)
