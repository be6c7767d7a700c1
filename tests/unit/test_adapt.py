"""When measured times are so far from predicted ones that another plan is wanted."""

from __future__ import annotations

from coexec.core.events import COPY, LAUNCH, Event
from coexec.runtime.adapt import AdaptOptions, Drift, busy_us

HOW = AdaptOptions(weight=0.5, settle=2, tolerance=0.2, patience=2)
PREDICTED = {"a": 100.0, "b": 200.0}


def steps_until_drift(drift: Drift, busy: dict[str, float], most: int = 30) -> int | None:
    """How many such steps it takes; None: it never happens."""
    return next((step for step in range(1, most) if drift.observe(busy)), None)


def test_times_as_predicted_are_no_drift() -> None:
    assert steps_until_drift(Drift(PREDICTED, HOW), {"a": 105.0, "b": 195.0}) is None


def test_one_slower_processor_is_noticed_within_a_few_steps() -> None:
    drift = Drift(PREDICTED, HOW)
    for _ in range(5):
        assert not drift.observe({"a": 100.0, "b": 200.0})
    assert steps_until_drift(drift, {"a": 100.0, "b": 400.0}) == 2
    assert 1.2 < drift.factors["b"] < 2.0
    assert drift.factors["a"] == 1.0


def test_all_slower_alike_is_no_reason_for_another_division() -> None:
    assert steps_until_drift(Drift(PREDICTED, HOW), {"a": 300.0, "b": 600.0}) is None


def test_the_only_busy_processor_is_compared_with_its_prediction() -> None:
    drift = Drift({"a": 100.0, "b": 0.0}, HOW)
    assert steps_until_drift(drift, {"a": 150.0}) == 4


def test_first_steps_and_single_outliers_do_not_count() -> None:
    drift = Drift(PREDICTED, HOW)
    slow, usual = {"a": 100.0, "b": 900.0}, {"a": 100.0, "b": 200.0}
    found = [drift.observe(busy) for busy in (slow, slow, usual, usual, usual)]
    assert not any(found)
    outlier = {"a": 100.0, "b": 290.0}
    assert not any(drift.observe(busy) for busy in (outlier, usual, usual))


def test_busy_time_is_that_of_kernels_on_each_processor() -> None:
    parts = (Event("k", LAUNCH, "a", 0, 2000), Event("l", LAUNCH, "a", 3000, 4000))
    events = [
        Event("region", LAUNCH, "a", 0, 4000, parts=parts),
        Event("write", COPY, "a", 4000, 9000),
        Event("region", LAUNCH, "b", 0, 7000),
    ]
    assert busy_us(events) == {"a": 3.0, "b": 7.0}
