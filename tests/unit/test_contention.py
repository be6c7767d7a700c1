"""The slowdown of one processor by another, with work whose slowdown is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coexec.core.events import Event
from coexec.core.machine import Rates
from coexec.core.processor import Buffer, Executable, ProcessorSpec, Ticket
from coexec.cost.contention import _Busy, slowdown
from coexec.cost.measured import MOST_AT_ONCE, prepare_busy
from coexec.cost.measuring import measure
from coexec.cost.model import ProcessorCosts
from coexec.cost.silicon import shared
from coexec.cost.store import CostStore
from coexec.processors.reference.processor import Done, ReferenceProcessor
from tests.unit.test_cost import nothing, product

RATES = Rates({"float32": 100.0}, 10.0, 5.0, 20.0)


class Counting(ReferenceProcessor):
    """The reference that counts what it is given and how often it is waited for."""

    submitted, waited = 0, 0

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Done:
        self.submitted += 1
        return super().submit(executable, buffers, after)

    def wait(self, ticket: Ticket) -> Event:
        self.waited += 1
        return super().wait(ticket)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def test_work_that_waits_for_a_shared_lock_is_slowed_down() -> None:
    lock = threading.Lock()

    def work() -> None:
        with lock:
            time.sleep(0.004)
        time.sleep(0.0002)  # a lock that is taken again at once starves the other thread

    assert slowdown(lambda: timed(work), work).factor > 1.4


def test_work_that_shares_nothing_is_not() -> None:
    found = slowdown(lambda: timed(lambda: time.sleep(0.005)), lambda: time.sleep(0.001))
    assert 1.0 <= found.factor < 1.4
    assert found.time.low_us <= found.time.median_us <= found.time.high_us


@pytest.mark.parametrize("drift", [1.006, 0.994])
def test_a_processor_that_changes_by_itself_is_not_slowed_down_by_another(drift: float) -> None:
    calls = 0  # neighbouring turns are 14 to 21 of them apart

    def drifting() -> float:
        nonlocal calls
        calls += 1
        time.sleep(0.002)
        return 1000.0 * drift**calls

    assert 1.0 <= slowdown(drifting, lambda: time.sleep(0.0005)).factor < 1.2


def test_what_goes_wrong_in_the_other_thread_is_raised() -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        slowdown(lambda: 1.0, fail)


def test_who_keeps_a_processor_busy_waits_once_for_many_calls() -> None:
    """The host's thread would take a core from who computes beside it, call by call."""
    processor = Counting()
    keep_busy = prepare_busy(processor, product(8, 8, 8))
    processor.submitted = processor.waited = 0
    keep_busy()
    assert processor.submitted == MOST_AT_ONCE
    assert processor.waited == 1


def test_ctrl_c_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that computed on while the interpreter ends would abort the process."""

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            raise KeyboardInterrupt

    before = threading.active_count()
    busy = _Busy(lambda: time.sleep(0.001))
    monkeypatch.setattr(busy, "begun", Interrupted())
    with pytest.raises(KeyboardInterrupt), busy:
        pass
    assert threading.active_count() == before


class OnCore(ReferenceProcessor):
    """The reference processor that says where it runs."""

    def __init__(self, name: str, core: str) -> None:
        super().__init__()
        self.name = name
        self.core = core

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "NumPy", resources=(self.core,))


def test_the_whole_of_a_cpu_and_a_core_of_it_are_the_same_silicon() -> None:
    assert shared(("cpu",), ("cpu:0",))
    assert shared(("cpu:0",), ("cpu",))
    assert shared(("cpu:0", "cpu:1"), ("cpu:1",))
    assert not shared(("cpu:0",), ("cpu:1",))
    assert not shared(("cpu:1",), ("cpu:10",))
    assert not shared(("cpu",), ("gpu",))
    assert not shared((), ("cpu",))


def test_only_processors_that_can_be_busy_at_once_are_measured(tmp_path: Path) -> None:
    costs = [
        ProcessorCosts(each, RATES, CostStore(each.describe(), "1", tmp_path))
        for each in (OnCore("a", "0"), OnCore("b", "0"), OnCore("c", "1"))
    ]
    a, b, c = costs
    seen: list[str] = []
    measure([product(64, 64, 64)], costs, 60.0, lambda _seconds, text: seen.append(text))
    assert [text for text in seen if "while" in text] == [
        "a while c is busy",
        "b while c is busy",
        "c while a is busy",
        "c while b is busy",
    ]
    calls = [product(64, 64, 64)]
    assert a.slowdown(b, calls) == 1.0
    assert a.slowdown(c, calls) >= 1.0
    again = ProcessorCosts(a.processor, RATES, CostStore(a.processor.describe(), "1", tmp_path))
    assert again.slowdown(c, calls) == pytest.approx(a.slowdown(c, calls), rel=1e-5)
    measure([product(64, 64, 64)], costs, 60.0, nothing)
