"""Many phases planned at once: the times of planning them one by one, with fewer events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.simulation import course
from coexec.simulation.engine import Engine
from coexec.simulation.work import Job, Work
from tests.unit.test_simulation_engine import CPU, DEVICE, GPU

TIGHT = replace(DEVICE, shared_gbps=12.0)
"""Two units want more of the memory than this nearly always."""


def random_jobs(seed: int, phases: int) -> tuple[Engine, list[Job]]:
    """Jobs on two units, some of which come while others are at work."""
    engine = Engine(TIGHT, seed=seed)
    engine.add(CPU)
    engine.add(GPU)
    rng = np.random.default_rng(seed)
    jobs = []
    for number in range(10):
        fixed, compute, memory = rng.uniform(0, 100, (3, phases)) * rng.integers(0, 2, (3, phases))
        work = Work(fixed, compute, memory, memory * rng.uniform(5e3, 12e3, phases))
        jobs.append(engine.submit(("cpu", "gpu")[number % 2], work))
        engine.pass_time(float(rng.uniform(0, 300)))
    for job in jobs:
        engine.run_until(job.done)
    return engine, jobs


@pytest.mark.parametrize("seed", range(4))
def test_segments_ahead_give_the_times_of_one_at_a_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, some = random_jobs(seed, phases=12)
    monkeypatch.setattr(course, "LOOKAHEAD", 1)
    single, same = random_jobs(seed, phases=12)
    for one, other in zip(some, same, strict=True):
        np.testing.assert_allclose(one.ends_us, other.ends_us, rtol=1e-9)
    assert ahead.ledger.joules == pytest.approx(single.ledger.joules)
    assert ahead.celsius == pytest.approx(single.celsius)
    assert ahead.peak_gbps == pytest.approx(single.peak_gbps)
    assert ahead.peak_gbps == pytest.approx(TIGHT.shared_gbps)


def test_phases_that_want_each_others_bandwidth_need_no_event_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans, plan = [0], Engine._plan

    def counted(engine: Engine) -> None:
        plans[0] += 1
        plan(engine)

    monkeypatch.setattr(Engine, "_plan", counted)
    _, jobs = random_jobs(0, phases=30)
    assert sum(len(job.work) for job in jobs) == 300
    assert plans[0] < 100
