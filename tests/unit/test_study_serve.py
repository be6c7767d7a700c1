"""Requests on a simulated phone: alone as ``coexec simulate`` says, and beside other models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coexec.api import load
from coexec.base.errors import ProcessorError
from coexec.core.soc_file import find_soc
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.runtime.executor import Executor
from coexec.simulate import Setup, Subject, simulate
from coexec.simulation.condition import CPU, GPU, Condition, Load, condition_named
from coexec.study import plans
from coexec.study.adapt import adapt
from coexec.study.definition import Workload
from coexec.study.plans import Desk, Placed
from coexec.study.serve import Running, Served, serve
from coexec.zoo.catalog import build

SOC = find_soc("snapdragon-855")
OPTIONS = SimulatedOptions(precision="float32", numerics=NONE)


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(load(build("lenet5", 1)), SOC, OPTIONS)


def bound(desk: Desk, phone: Phone, placed: Placed, fps: float = 0.0) -> Running:
    inputs = placed.program.inputs
    feeds = {name: array for name, array in desk.feeds.items() if name in inputs}
    executor = Executor(placed.program, desk.opened(phone))
    return Running(executor, feeds, fps, placed.under_way)


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


def ms(desk: Desk, strategy: str) -> float:
    return served(desk, Workload("sequence", 1), strategy).latencies_ms[0]


def test_auto_takes_no_plan_that_is_slower_than_a_processor_alone() -> None:
    """Heads on four maps: results on their way end a launch, and an NPU takes long for each."""
    phone = find_soc("dimensity-9300")
    options = SimulatedOptions(numerics=NONE, precision="float16")
    desk = Desk(load(build("detector", 1)), phone, options)
    alone = {name: ms(desk, name) for name in ("cpu", "gpu", "npu")}
    assert alone["npu"] < 0.5 * min(alone["cpu"], alone["gpu"])
    assert ms(desk, "auto") <= 1.02 * alone["npu"]
    chain = desk.placed("chain").plan.predicted_us
    assert chain == pytest.approx(1e3 * ms(desk, "chain"), rel=0.1)


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


def test_plans_are_watched_at_the_clocks_at_which_they_are_served(desk: Desk) -> None:
    """Watched from the start, a hot phone has the clocks of a cold one, and no plan is changed."""
    tiny = replace(SOC, thermal=replace(SOC.thermal, joule_per_kelvin=0.05))
    clocks = []

    def stage(placed: Placed) -> tuple[Phone, Running, list[Running]]:
        phone = Phone(tiny, condition_named("hot"), walled=False)
        main = bound(desk, phone, placed)
        run = main.executor.run

        def watched(*arguments: Any, **named: Any) -> Any:
            clocks.append(min(phone.engine.speed(unit.name) for unit in phone.engine.units))
            return run(*arguments, **named)

        main.executor.run = watched  # type: ignore[method-assign]
        return phone, main, []

    adapt(desk, stage)
    assert set(clocks) == {1.0}
    clocks.clear()
    adapt(desk, stage, lead_in_s=1.0)
    assert max(clocks) < 1.0
    phone, main, others = stage(desk.placed("auto"))
    served = serve(phone, main, others, Workload("sequence", 3), lead_in_s=1.0)
    assert served.celsius > tiny.thermal.throttle_celsius


def test_a_pipeline_works_on_several_requests_at_once() -> None:
    desk = Desk(load(build("resnet18", 1)), SOC, OPTIONS)
    placed = desk.placed("pipeline")
    assert placed.under_way > 1
    alone = replace(placed, under_way=1)
    burst, found = Workload("burst", 12), {}
    for each in (placed, alone):
        phone = Phone(SOC, condition_named("idle"), steady=True)
        found[each.under_way] = serve(phone, bound(desk, phone, each), [], burst)
    together, one_by_one = found[placed.under_way], found[1]
    assert together.latencies_ms[0] >= one_by_one.latencies_ms[0] * (1 - 1e-9)
    assert together.seconds < 0.95 * one_by_one.seconds
    assert together.joules < one_by_one.joules
    assert list(together.latencies_ms) == sorted(together.latencies_ms)


def test_exact_is_never_worse_than_whole_plans_and_only_for_small_graphs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = desk.placed("exact")
    assert exact.note == "optimal"
    predicted = {name: desk.placed(name).plan.predicted_us or 0.0 for name in ("heft", "chain")}
    assert (exact.plan.predicted_us or 0.0) <= min(predicted.values()) * (1 + 1e-6)
    monkeypatch.setattr(plans, "EXACT_TASKS", 3)
    with pytest.raises(ProcessorError, match="tasks are more than exact takes"):
        Desk(desk.model, SOC, OPTIONS).placed("exact")
