"""Requests on a simulated phone: alone as ``coexec simulate`` says, and beside other models."""

from __future__ import annotations

import pytest

from coexec.api import load
from coexec.core.soc_file import find_soc
from coexec.processors.simulated.phone import Phone
from coexec.runtime.executor import Executor
from coexec.simulate import Setup, Subject, simulate
from coexec.simulation.condition import CPU, GPU, Condition, Load
from coexec.study.adapt import adapt
from coexec.study.definition import Workload
from coexec.study.plans import Desk, Placed
from coexec.study.serve import Running, Served, serve
from coexec.zoo.catalog import build

SOC = find_soc("snapdragon-855")


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(load(build("lenet5", 1)), SOC, "float32", "finish", seed=0)


def bound(desk: Desk, phone: Phone, placed: Placed, fps: float = 0.0) -> Running:
    inputs = placed.program.inputs
    feeds = {name: array for name, array in desk.feeds.items() if name in inputs}
    return Running(Executor(placed.program, desk.opened(phone)), feeds, fps)


def served(desk: Desk, workload: Workload, strategy: str, condition: str = "idle") -> Served:
    phone = desk.phone(condition)
    placed = desk.placed(strategy)
    others = [bound(desk, phone, placed, fps) for fps in workload.beside.values()]
    return serve(phone, bound(desk, phone, placed), others, workload)


@pytest.mark.parametrize("policy", ["single_best", "operator_split"])
def test_one_after_the_other_as_coexec_simulate_says(desk: Desk, policy: str) -> None:
    setup = Setup(SOC.name, policy=policy, precision="float32", runs=3)
    (known,) = simulate(Subject(desk.model, desk.feeds), setup)
    found = served(desk, Workload("sequence", 3), policy)
    assert found.latencies_ms == pytest.approx(known.latencies_ms)
    assert found.joules / 3 == pytest.approx(known.total_j, rel=0.05)


def test_requests_of_a_burst_wait_for_those_before(desk: Desk) -> None:
    alone = served(desk, Workload("sequence", 1), "cpu").latencies_ms[0]
    burst = served(desk, Workload("burst", 4), "cpu").latencies_ms
    assert burst == pytest.approx([alone * (1 + i) for i in range(4)], rel=1e-6)


def test_slow_periodic_requests_are_alone(desk: Desk) -> None:
    alone = served(desk, Workload("sequence", 1), "cpu").latencies_ms[0]
    found = served(desk, Workload("periodic", 4, fps=10), "cpu")
    assert found.latencies_ms == pytest.approx([alone] * 4, rel=1e-6)
    assert found.seconds == pytest.approx(0.3 + alone / 1e3)


def test_models_beside_take_time(desk: Desk) -> None:
    alone = served(desk, Workload("sequence", 8), "cpu")
    rate = 2e3 / alone.latencies_ms[0]  # more than the processor can do
    crowded = served(desk, Workload("sequence", 8, beside={"other": rate}), "cpu")
    assert crowded.others_ms
    assert sum(crowded.latencies_ms) > 1.3 * sum(alone.latencies_ms)


def test_a_processor_that_others_take_is_left_for_another(desk: Desk) -> None:
    static = desk.placed("auto")
    taken = next(kind for kind in ("cpu", "gpu") if static.record()[f"nodes_{kind}"])
    load = Load({"cpu": CPU, "gpu": GPU}[taken], 0.95, 0.0, mean_on_ms=1e6, mean_off_ms=1e-3)
    crowded = Condition("crowded", "nearly all of it is gone", (load,))

    def stage(placed: Placed) -> tuple[Phone, Running, list[Running]]:
        phone = Phone(SOC, crowded, walled=False)
        return phone, bound(desk, phone, placed), []

    found = adapt(desk, stage)
    assert found.replanned >= 1
    assert found.placed.record()[f"nodes_{taken}"] == 0
    workload = Workload("sequence", 5)
    slow = serve(*stage(static), workload).latencies_ms
    quick = serve(*stage(found.placed), workload).latencies_ms
    assert sum(quick) < 0.5 * sum(slow)
