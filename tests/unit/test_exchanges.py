"""The host's time for exchanges, by a chain that runs through the executor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coexec.base.errors import ProcessorError
from coexec.core.processor import Processor, ProcessorSpec
from coexec.cost.distribution import Distribution
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import CostStore
from coexec.planning import exchanges
from coexec.planning.exchanges import EXCHANGES, exchange_time, measure_exchanges
from coexec.processors.reference.processor import ReferenceProcessor
from tests.placement.test_build_problem import RATES
from tests.placement.test_first_that_can import MadeUp

OPERATORS = ("Abs", "Neg")


class Chained(MadeUp):
    """A processor that says that it follows others."""

    chained = True


class Named(ReferenceProcessor):
    """The reference under another name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), name=self.name)


def costs_of(folder: Path, *processors: Processor) -> list[ProcessorCosts]:
    return [ProcessorCosts(p, RATES, CostStore(p.describe(), "test", folder)) for p in processors]


def test_a_chain_really_changes_places() -> None:
    found = exchange_time(Named("a"), Named("b"))
    assert 0 <= found.low_us <= found.median_us <= found.high_us < 1e5


def test_what_a_chain_takes_longer_on_two_processors_is_exchanges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On both 90 us more than on either alone, in the mean."""
    clock: Iterator[float] = iter([10.0 + 90.0 * EXCHANGES, 5.0, 15.0] * 100)
    monkeypatch.setattr(exchanges, "_run_us", lambda session, feeds: next(clock))
    found = exchange_time(Named("a"), Named("b"))
    assert found == Distribution.exactly(90.0)


def test_exchanges_are_measured_twice_between_those_that_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time nobody disturbs it."""
    found = iter([Distribution.exactly(90.0), Distribution.exactly(30.0)])
    monkeypatch.setattr(exchanges, "exchange_time", lambda *_: next(found))
    named: dict[str, Processor] = {
        "a": Chained("a", *OPERATORS),
        "b": Chained("b", *OPERATORS),
        "c": MadeUp("c", *OPERATORS),
    }
    costs = costs_of(tmp_path, *named.values())
    said: list[str] = []
    for _ in range(3):
        measure_exchanges(named, costs, 1.0, lambda _, text: said.append(text))
    assert said == ["exchanges of a and b"] * 2
    assert costs[1].exchange_us(costs[0]) == 30.0
    assert [costs[p].exchange_us(costs[q]) is not None for p, q in ((0, 1), (1, 0), (0, 2))] == [
        True,
        True,
        False,
    ]
    measure_exchanges(named, costs_of(tmp_path / "new", *named.values()), 0.0, lambda *_: None)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_measured_is_said_and_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Processor) -> Distribution:
        raise ProcessorError("no such kernel")

    monkeypatch.setattr(exchanges, "exchange_time", refuse)
    named: dict[str, Processor] = {name: Chained(name, *OPERATORS) for name in "ab"}
    costs = costs_of(tmp_path, *named.values())
    measure_exchanges(named, costs, 1.0, lambda *_: None)
    assert costs[0].exchange_us(costs[1]) is None
    assert "exchanges of a and b not measured: no such kernel" in caplog.text
