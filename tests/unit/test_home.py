"""On which cores the caller of several processors is, and how it waits for them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from coexec.base import cores as base_cores
from coexec.base.cores import cores_of, physical_cores, resources_of
from coexec.core.processor import ProcessorSpec, Ticket
from coexec.frontend import load
from coexec.runtime import home as module
from coexec.runtime.executor import Executor
from coexec.runtime.home import Home, home_of
from coexec.runtime.lane_run import sides_of
from tests.graphs import parse
from tests.queues import Later, Queued, executor

TEXT = "g (float[5] a) => (float[5] x, float[5] y) { [x] x = Neg(a) [y] y = Exp(a) }"
CHAIN = "g (float[5] a) => (float[5] y) { [t] t = Neg(a) [u] u = Exp(t) [y] y = Neg(u) }"
FIRST, SECOND = physical_cores()[:2] if len(physical_cores()) > 1 else ((0,), (1,))
CORES = {"cpu:0": FIRST, "cpu:1": SECOND}


class OnCore(Queued):
    """A queue on a core of its own that notes how it is waited for, and from which cores."""

    def __init__(self, name: str, core: str) -> None:
        super().__init__(name)
        self.core = core
        self.waited: list[tuple[str, frozenset[int]]] = []

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "test", resources=(self.core,))

    def finish(self, ticket: Ticket) -> None:
        self._wait("asleep", ticket)

    def watch(self, ticket: Ticket) -> None:
        self._wait("awake", ticket)

    def _wait(self, how: str, ticket: Ticket) -> None:
        assert isinstance(ticket, Later)
        self.waited.append((how, frozenset(os.sched_getaffinity(0))))
        ticket.done.result()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> dict[str, Queued]:
    """Two processors of one core each, on a host whose cores are known."""
    monkeypatch.setattr(module, "cores_of", lambda names: tuple(CORES[name] for name in names))
    return {"one": OnCore("one", "cpu:0"), "two": OnCore("two", "cpu:1")}


def home(runs: Executor, on: dict[str, Queued]) -> Home:
    return home_of(runs.program, on, sides_of([*on.values()]))


def test_the_caller_is_with_the_first_processor(
    on: dict[str, Queued],
) -> None:
    runs = executor(load(parse(TEXT), {}), {"x": "one", "y": "two"}, on)
    assert home(runs, on) == Home(("one", "two"), (FIRST,), brief=True)
    assert home(runs, on).cores_of_run == (FIRST,)


def test_it_is_there_only_to_wait_where_processors_follow_each_other(
    on: dict[str, Queued],
) -> None:
    runs = executor(load(parse(CHAIN), {}), {"t": "one", "u": "two", "y": "one"}, on)
    assert home(runs, on) == Home(("one", "two"), (FIRST,), brief=False)
    assert home(runs, on).cores_of_run == ()


def test_processors_that_share_a_core_have_no_say(on: dict[str, Queued]) -> None:
    runs = executor(load(parse(TEXT), {}), {"x": "one", "y": "two"}, on)
    both = {"one": OnCore("one", "cpu:0"), "two": OnCore("two", "cpu:0")}
    assert home(runs, dict(both)) == Home(("one", "two"), (), brief=False)


@pytest.mark.skipif(len(physical_cores()) < len(CORES), reason="one core")
def test_the_first_is_waited_for_asleep_and_others_awake_on_its_core(
    on: dict[str, Queued],
) -> None:
    before = os.sched_getaffinity(0)
    """From the second run on: drivers make threads in the first, which would be tied, too."""
    runs = executor(load(parse(TEXT), {}), {"x": "one", "y": "two"}, on)
    one, two = on["one"], on["two"]
    assert isinstance(one, OnCore)
    assert isinstance(two, OnCore)
    runs.run({"a": np.ones(5, np.float32)})
    assert set(one.waited + two.waited) == {("asleep", frozenset(before))}
    one.waited.clear()
    two.waited.clear()
    runs.run({"a": np.ones(5, np.float32)})
    assert {how for how, _ in one.waited} == {"asleep"}
    assert {how for how, _ in two.waited} == {"awake"}
    assert {where for _, where in one.waited + two.waited} == {frozenset(FIRST)}
    assert os.sched_getaffinity(0) == before


def test_cores_are_known_by_the_names_of_their_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_cores, "physical_cores", lambda: ((0, 4), (1, 5), (2, 6)))
    assert cores_of(resources_of([2, 0])) == ((2, 6), (0, 4))
    assert cores_of(["cpu:1", "gpu"]) == ()
    assert cores_of(["cpu"]) == ()
