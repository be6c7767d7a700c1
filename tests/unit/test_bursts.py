"""Latencies that are kept are those of quiet moments, on made-up clocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from coexec.base.bursts import BURST, SECONDS, quiet_latency


class MadeUp:
    """An action on a clock of its own, whose seconds follow from when it begins."""

    def __init__(self, seconds_at: Callable[[float], float]) -> None:
        self.now = 0.0
        self.calls = 0
        self._seconds_at = seconds_at

    def sample(self) -> float:
        seconds = self._seconds_at(self.now)
        self.now += seconds
        self.calls += 1
        return seconds

    def clock(self) -> float:
        return self.now


def test_what_disturbs_most_of_the_time_is_not_kept() -> None:
    def disturbed(now: float) -> float:
        return 20e-6 if 0.15 < now < 0.18 else 1260e-6

    action = MadeUp(disturbed)
    assert quiet_latency(action.sample, action.clock) == pytest.approx(20e-6)


def test_the_luck_of_single_samples_does_not_count() -> None:
    draws = np.random.default_rng(0).choice([10e-6, 30e-6], size=100_000, p=[0.15, 0.85])
    action = MadeUp(lambda now: float(draws[int(now * 1e5)]))
    assert quiet_latency(action.sample, action.clock) == pytest.approx(30e-6)


def test_it_ends_in_time_and_slow_actions_are_sampled_too() -> None:
    quick, slow = MadeUp(lambda now: 1e-4), MadeUp(lambda now: 1.0)
    assert quiet_latency(quick.sample, quick.clock) == pytest.approx(1e-4)
    assert quick.now == pytest.approx(SECONDS, rel=0.02)
    assert quiet_latency(slow.sample, slow.clock) == 1.0
    assert slow.calls == BURST + 1
