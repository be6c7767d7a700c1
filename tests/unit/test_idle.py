"""From the second run on, only instructions with which the first one had to do are followed."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.program import Read, Write
from coexec.core.types import Array
from coexec.frontend import load
from coexec.runtime.lane_run import LaneRun
from tests.graphs import parse
from tests.queues import executor, queues

TWO_AT_ONCE = parse(
    "g (float[5] a) => (float[5] y) { [l] l = Neg(a) [m] m = Exp(a)"
    " [r] r = Add(l, m) [y] y = Mul(r, l) }"
)
PLACES = {"l": "one", "m": "one", "r": "two", "y": "two"}


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tensors that runs look at on their way between processors."""
    seen: list[str] = []
    write, read = LaneRun.write, LaneRun.read

    def note_write(self: LaneRun, step: Write) -> None:
        seen.append(f"write {step.tensor}")
        write(self, step)

    def note_read(self: LaneRun, step: Read) -> object:
        seen.append(f"read {step.tensor}")
        return read(self, step)

    monkeypatch.setattr(LaneRun, "write", note_write)
    monkeypatch.setattr(LaneRun, "read", note_read)
    return seen


def both(x: Array) -> Array:
    return (np.exp(x) - x) * -x


def test_one_of_the_tensors_that_are_there_together_tells_for_all(followed: list[str]) -> None:
    on = queues("one", "two")
    for each in on.values():
        each.host_memory = each.sees = each.chained = True
    runs = executor(load(TWO_AT_ONCE, {}), PLACES, on)
    counts = []
    for round_number in range(3):
        x = np.linspace(-1, round_number, 5, dtype=np.float32)
        followed.clear()
        np.testing.assert_allclose(runs.run({"a": x})["y"], both(x), rtol=1e-6)
        counts.append(sum("staged" in each for each in followed))
    assert counts[0] == 4  # l and m, on both sides
    assert counts[1] == counts[2] == 2


def test_nothing_is_left_out_where_tensors_are_copied(followed: list[str]) -> None:
    on = queues("one", "two")
    for each in on.values():
        each.host_memory, each.chained = False, True
    runs = executor(load(TWO_AT_ONCE, {}), PLACES, on)
    for round_number in range(3):
        x = np.linspace(-1, round_number, 5, dtype=np.float32)
        followed.clear()
        np.testing.assert_allclose(runs.run({"a": x})["y"], both(x), rtol=1e-6)
        assert sum("staged" in each for each in followed) == 4
