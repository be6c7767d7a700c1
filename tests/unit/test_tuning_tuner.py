"""The tuner on a machine of paper: order of calls, oracles, interruption, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from coexec.core.tuning import TuneReport
from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, Chooser, by_default
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.tuning.lookup import load_tuned, tuned_path
from coexec.processors.opencl.tuning.search import Refused, Trial
from coexec.processors.opencl.tuning.store import read_tuned
from coexec.processors.opencl.tuning.tuner import OpenCLTuner

FACTS = DeviceFacts("paper", "any", True, True, 4096, 1 << 15, 2, 32)
FLOAT = np.dtype(np.float32)


def call(identifier: str, *shapes: tuple[int, ...], **attributes: Any) -> OpCall:
    op = OPERATORS[identifier]
    inputs = tuple(TensorType(shape, FLOAT) for shape in shapes)
    return op.typed(OpCall(op.op_type, inputs, attributes, domain=op.domain, version=21))


LIGHT, HEAVY = call("Relu", (4, 64)), call("Relu", (32, 64))
CONV = call("Conv", (8, 16, 9, 9), (32, 16, 3, 3), pads=(1, 1, 1, 1))


class Processor:
    """What the tuner wants of one: its name, its facts, and to be asked for kernels."""

    name = "opencl:paper"
    facts = FACTS
    choose: Chooser = staticmethod(by_default)


class Machine:
    """Trials cost milliseconds on its clock; ``refuse`` may refuse a candidate or raise."""

    def __init__(self, cost: Callable[[OpCall, Choice], float], build_s: float = 0.0) -> None:
        self.now = 0.0
        self.cost = cost
        self.build_s = build_s
        self.refuse: Callable[[OpCall, Choice], None] = lambda _call, _choice: None

    def tune(self, *calls: OpCall, seconds: float = 60.0, save: Path | None = None) -> TuneReport:
        processor = Processor()
        tuner = OpenCLTuner(
            cast(OpenCLProcessor, processor), lambda: self.now, lambda _d, c: Bench(self, c)
        )
        for noted in calls:
            processor.choose(KERNELS[noted.identifier], noted, FACTS)
        return tuner.tune(seconds, lambda _seconds, _text: None, save)


class Bench:
    def __init__(self, machine: Machine, of: OpCall) -> None:
        self.machine, self.of = machine, of

    def set_oracle(self, oracle: Choice) -> float:
        return self.prepare(oracle).sample()

    def prepare(self, choice: Choice) -> Trial:
        self.machine.refuse(self.of, choice)
        self.machine.now += self.machine.build_s
        return Run(self.machine, self.machine.cost(self.of, choice))


class Run:
    def __init__(self, machine: Machine, ms: float) -> None:
        self.machine, self.ms = machine, ms

    def sample(self) -> float:
        self.machine.now += self.ms / 1e3
        return self.ms


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path / "cache"))


def by_size(of: OpCall, choice: Choice) -> float:
    """Costly by size; half as much with the widest groups of the wide variant."""
    fast = choice.variant.name == "wide" and choice.values["LOCAL"] == 128
    return of.output(0).size / 1e4 * (0.5 if fast else 1.0)


def kept() -> dict[tuple[int, ...], float]:
    """Gains on disk by sizes."""
    path = tuned_path(FACTS)
    entries = read_tuned(path).entries if path.exists() else ()
    return {entry.key.sizes: 1 - entry.ms / entry.default_ms for entry in entries}


def test_what_is_found_is_kept_reported_and_used(tmp_path: Path) -> None:
    report = Machine(by_size).tune(LIGHT, HEAVY, HEAVY, save=tmp_path / "found.json")
    assert [(c.sizes, c.count, c.checked) for c in report.calls] == [
        ((32, 64), 2, "naive"),
        ((4, 64), 1, "naive"),
    ]
    heavy = report.calls[0]
    assert heavy.gain_ms == pytest.approx(2 * heavy.default_ms / 2)
    assert report.ms == pytest.approx(report.default_ms / 2)
    assert kept() == {(32, 64): 0.5, (4, 64): 0.5}
    assert report.files == (tuned_path(FACTS), tmp_path / "found.json")
    assert read_tuned(tmp_path / "found.json") == read_tuned(tuned_path(FACTS))
    used = load_tuned(FACTS)(KERNELS["Relu"], HEAVY, FACTS)
    assert str(used) == heavy.chosen != heavy.default


def test_heavy_calls_come_first_and_the_next_run_goes_on() -> None:
    calls = [call("Relu", (4, 1000 * i)) for i in range(3, 9)]
    heavy_first = [c.output(0).shape for c in reversed(calls)]
    first = Machine(by_size, build_s=0.05).tune(*calls, seconds=1.2)
    reached = {c.sizes for c in first.calls if c.tried}
    assert 0 < len(reached) < len(calls)
    assert reached == set(heavy_first[: len(reached)])
    assert "no time left" in {c.note for c in first.calls if c.sizes not in reached}
    second = Machine(by_size, build_s=0.05).tune(*calls, seconds=1.2)
    went_on = {c.sizes for c in second.calls if c.tried}
    assert heavy_first[len(reached)] in went_on
    assert set(kept()) == reached | went_on


def test_an_interrupted_search_keeps_what_it_found() -> None:
    machine = Machine(by_size)
    measured: list[OpCall] = []

    def interrupt(of: OpCall, _choice: Choice) -> None:
        if of is LIGHT and LIGHT in measured:
            raise KeyboardInterrupt
        measured.append(of)

    machine.refuse = interrupt
    report = machine.tune(LIGHT, HEAVY)
    assert report.interrupted
    assert kept() == {(32, 64): 0.5}
    assert {c.sizes: c.note for c in report.calls} == {(32, 64): "", (4, 64): "no time left"}


def test_a_default_that_does_not_run_is_reported_and_passed_over() -> None:
    machine = Machine(by_size)

    def refuse(of: OpCall, _choice: Choice) -> None:
        if of is HEAVY:
            raise Refused("does not build")

    machine.refuse = refuse
    report = machine.tune(LIGHT, HEAVY)
    notes = {c.sizes: c.note for c in report.calls}
    default = by_default(KERNELS["Relu"], HEAVY, FACTS)
    assert notes == {(4, 64): "", (32, 64): f"{default}: does not build"}
    assert kept() == {(4, 64): 0.5}


def test_where_naive_takes_too_long_one_image_is_held_to_it() -> None:
    """A candidate that is wrong there alone is refused."""

    def cost(of: OpCall, choice: Choice) -> float:
        return (30_000.0 if choice.variant.name == "naive" else 100.0) * of.input(0).shape[0] / 8

    machine = Machine(cost)

    def refuse(of: OpCall, choice: Choice) -> None:
        if of.input(0).shape[0] == 1 and choice.values.get("DEPTH") == 256:
            raise Refused("wrong result")

    machine.refuse = refuse
    (found,) = machine.tune(CONV, seconds=20.0).calls
    default = by_default(KERNELS["Conv"], CONV, FACTS)
    assert found.checked == f"{default.variant.name}, naive on Conv 1x16x32x9x9"
    assert found.refused is not None
    assert found.refused["wrong result"] >= 1
    assert "naive" not in found.chosen


def test_a_naive_variant_that_is_no_slower_may_win() -> None:
    def cost(of: OpCall, choice: Choice) -> float:
        return 1.0 if choice.variant.name == "naive" else 2.0

    (found,) = Machine(cost).tune(HEAVY).calls
    assert found.chosen.startswith("naive")
    assert found.checked == "naive"


def test_stale_entries_are_dropped_with_their_reasons() -> None:
    Machine(by_size).tune(HEAVY)
    path = tuned_path(FACTS)
    path.write_text(path.read_text().replace('"LOCAL": 128', '"LOCAL": 7'))
    report = Machine(by_size).tune(LIGHT)
    assert report.stale == {"LOCAL=7 is no value of Relu's 'wide'": 1}
    assert set(kept()) == {(4, 64)}
