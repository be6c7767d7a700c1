"""Calls are measured as a network runs them: constants in no cache, operands as they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest

from coexec.base.errors import ProcessorError
from coexec.core.processor import Buffer, Executable, Ticket
from coexec.core.types import OpCall, Region
from coexec.cost import measuring
from coexec.cost.distribution import Distribution
from coexec.cost.measured import (
    COLD_BYTES,
    FEW_BYTES,
    MOST_COPIES,
    SWEPT_BYTES,
    Sweep,
    copies_of,
    measure_call,
    sweep_of,
)
from coexec.cost.measuring import measure
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import CostStore
from coexec.processors.reference.processor import (
    Done,
    ReferenceExecutable,
    ReferenceProcessor,
)
from tests.runtimes import THOROUGH, open_opencl
from tests.unit.test_cost import RATES, SPEC, nothing, product, relu


@dataclass(frozen=True)
class Weighing(ReferenceExecutable):
    """A region with the constants that it keeps."""

    @property
    def constant_bytes(self) -> int:
        return sum(array.nbytes for array in self.region.constants.values())


class Caching(ReferenceProcessor):
    """Runs take 10 us, 7 more where constants are in no cache, 50 more where operands are not.

    A cache has what was read since the last sweep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cached: set[int] = set()
        self.now_ns = 0

    def compile(self, region: Region) -> Weighing:
        made = super().compile(region)
        return Weighing(made.processor, made.inputs, made.outputs, 0, 0, region=region)

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Done:
        event = super().submit(executable, buffers, after).event
        cold = id(executable) not in self.cached
        away = not self.cached.issuperset(map(id, buffers))
        self.cached |= {id(executable), *map(id, buffers)}
        start, self.now_ns = self.now_ns, self.now_ns + 10_000 + 7_000 * cold + 50_000 * away
        return Done(replace(event, start_ns=start, end_ns=self.now_ns))

    def sweep(self) -> Done:
        self.cached.clear()
        event = super().submit(*self._idle, ()).event
        return Done(replace(event, start_ns=self.now_ns, end_ns=self.now_ns))

    @property
    def _idle(self) -> tuple[Executable, list[Buffer]]:
        made = ReferenceProcessor.compile(self, Region.alone(relu(1)))
        return made, [self.alloc(4), self.alloc(4)]


WEIGHTS = product(4, 64, 128, weights=True)
"""A product with 32 KiB of them."""


def test_constants_come_from_memory_and_operands_from_caches() -> None:
    processor = Caching()
    found = measure_call(processor, WEIGHTS, processor.sweep)
    assert (found.low_us, found.median_us, found.high_us) == (17.0, 17.0, 17.0)
    warm = measure_call(processor, WEIGHTS)
    assert warm.median_us == 10.0


def test_calls_without_constants_meet_warm_operands() -> None:
    processor = Caching()
    assert measure_call(processor, product(4, 64, 128), processor.sweep).median_us == 10.0


def test_copies_of_constants_take_a_bounded_part_of_memory() -> None:
    def copies(nbytes: int) -> int:
        return copies_of(replace(Sized("", (), (), 0, 0), nbytes=nbytes))

    assert copies(0) == copies(FEW_BYTES - 1) == 1
    assert copies(FEW_BYTES) == MOST_COPIES
    assert copies(COLD_BYTES // 4) == 4
    assert copies(COLD_BYTES) == 2
    assert copies(COLD_BYTES + 1) == copies(400 << 20) == 1


@dataclass(frozen=True)
class Sized(Executable):
    nbytes: int = 0

    @property
    def constant_bytes(self) -> int:
        return self.nbytes


def test_a_sweep_is_made_once_and_for_calls_with_constants_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    given: list[bool] = []

    def sweeping(processor: ReferenceProcessor) -> Sweep:
        made.append(processor.describe().name)
        return Caching().sweep

    def measured(_processor: object, _call: OpCall, sweep: Sweep | None) -> Distribution:
        given.append(sweep is not None)
        return Distribution.exactly(5.0)

    monkeypatch.setattr(measuring, "HEAVY", 1.0)
    monkeypatch.setattr(measuring, "sweep_of", sweeping)
    monkeypatch.setattr(measuring, "measure_call", measured)
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))
    measure([relu(8)], [costs], 60.0, nothing)
    assert (made, given) == ([], [False])
    weights = [product(4, 64, 128, weights=True), product(4, 64, 256, weights=True)]
    measure(weights, [costs], 60.0, nothing)
    assert (made, given) == (["reference"], [False, True, True])


def test_without_a_sweep_it_is_said_and_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_processor: object) -> Sweep:
        raise ProcessorError("no room")

    monkeypatch.setattr(measuring, "sweep_of", refused)
    costs = ProcessorCosts(ReferenceProcessor(), RATES, CostStore(SPEC, "1", tmp_path))
    measure([WEIGHTS], [costs], 60.0, nothing)
    assert costs.measured(WEIGHTS) is not None
    assert "may be in caches: no room" in caplog.text


@pytest.mark.parametrize("name", THOROUGH[:1])
def test_a_sweep_reads_what_no_cache_holds(name: str) -> None:
    processor = open_opencl(name)
    sweep = sweep_of(processor)
    assert sweep is not None
    times = [processor.wait(sweep()).duration_ns for _ in range(3)]
    assert median(times) * 500 > SWEPT_BYTES  # below 500 GB/s
    cold, warm = (measure_call(processor, WEIGHTS, each) for each in (sweep, None))
    assert cold.high_us >= warm.low_us > 0
