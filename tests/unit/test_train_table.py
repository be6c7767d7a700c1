"""What ``coexec train`` prints of its record."""

from __future__ import annotations

from typing import Any

import pytest

from coexec.cli.train_plan import plan_record
from coexec.cli.train_table import show_training
from coexec.core.plan import Plan

RECORD: dict[str, Any] = {
    "fallbacks": ["Relu x1 not on b: no float16 (relu)"],
    "notes": [],
    "validation_loss": None,
    "accuracy": None,
    "adaptations": [],
    "plan": None,
    "clock": "host",
    "steps": 4,
    "step_ms_median": 2.0,
    "peak_bytes": None,
    "memory": None,
    "activations": None,
    "overflows": None,
    "out": None,
}


def test_what_processors_of_a_plan_refuse_is_no_fallback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another processor of the plan computes it, not the last resort."""
    line = "Relu x1 not on b: no float16 (relu)"
    show_training(RECORD, [])
    assert f"fallback: {line}" in capsys.readouterr().err
    show_training(RECORD | {"plan": plan_record(Plan({"relu": "a"}), {})}, [])
    assert f"refused: {line}" in capsys.readouterr().err


@pytest.mark.parametrize(("overflows", "text"), [(1, "1 step"), (2, "2 steps")])
def test_overflows_are_counted_in_words(
    capsys: pytest.CaptureFixture[str], overflows: int, text: str
) -> None:
    show_training(RECORD | {"overflows": overflows}, [])
    assert f"float16   {text} overflowed and changed nothing" in capsys.readouterr().out
