"""The tuner's search on synthetic costs: what it finds, what it spends, what it refuses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant
from coexec.processors.opencl.tuning.search import Found, Refused, Search
from coexec.processors.opencl.tuning.space import Space

FACTS = DeviceFacts("any", "any", True, True, 256, 1 << 15, 4, 64)
FLOAT = np.dtype(np.float32)
CALL = OPERATORS["Relu"].typed(OpCall("Relu", (TensorType((64,), FLOAT),)))


def variant(name: str, *, refusal: str | None = None, **space: tuple[int, ...]) -> Variant:
    return Variant(name, lambda *_: Lowering(()), lambda *_: refusal, space)


FAMILY = KernelFamily(
    "synthetic",
    ("Relu",),
    (
        variant("refused", refusal="not here", A=(1, 2)),
        variant("tiles", A=(8, 1, 2, 4, 16, 32), B=(1, 2, 4, 8), C=(3, 1, 2, 4)),
        variant("rows", A=(4, 1, 2, 8), L=(64, 16, 256)),
        variant("naive", L=(64, 16)),
    ),
)


class Machine:
    """A clock, and trials that take their cost in milliseconds on it."""

    def __init__(self, cost: Callable[[Choice], float], build_s: float = 0.01) -> None:
        self.now = 100.0
        self.cost = cost
        self.build_s = build_s
        self.samples: Counter[str] = Counter()
        self.load: Callable[[float], float] = lambda _now: 1.0

    def prepare(self, choice: Choice) -> Trial:
        self.now += self.build_s
        return Trial(self, choice)

    def search(self, seconds: float = 1e6, space: Space | None = None) -> Found:
        space = space or Space.of(FAMILY, CALL, FACTS)
        deadline = self.now + seconds
        return Search(space, self.prepare, lambda: self.now, deadline, random.Random(7)).run()


class Trial:
    def __init__(self, machine: Machine, choice: Choice) -> None:
        self.machine, self.choice = machine, choice

    def sample(self) -> float:
        ms = self.machine.cost(self.choice) * self.machine.load(self.machine.now)
        self.machine.now += ms / 1e3
        self.machine.samples[str(self.choice)] += 1
        return ms


def bowl(choice: Choice) -> float:
    """One valley over the tiles; everything else is slower."""
    if choice.variant.name != "tiles":
        return 90.0
    a, b, c = (np.log2(choice.values[name]) for name in "ABC")
    return float(10 + 6 * abs(a - 5) + 8 * abs(b - 2) + 3 * abs(c - 2))


def test_the_optimum_of_a_valley_is_found() -> None:
    found = Machine(bowl).search()
    assert str(found.best) == "tiles A=32 B=4 C=4"
    assert found.ms == pytest.approx(10)
    assert found.default_ms == pytest.approx(10 + 12 + 16 + 3 * abs(np.log2(3) - 2))


def test_another_variant_that_applies_may_win() -> None:
    def cost(choice: Choice) -> float:
        return 5.0 + abs(choice.values["L"] - 16) if choice.variant.name == "rows" else 60.0

    assert Machine(cost).search().best.variant.name == "rows"
    assert Machine(cost).search().best.values["L"] == 16


def test_an_optimum_behind_a_ridge_is_found_by_chance() -> None:
    """No coordinate step from a default leads there; a random draw does."""

    def cost(choice: Choice) -> float:
        values = dict(choice.values)
        return 1.0 if values.get("A", 0) <= 2 and values.get("B", 0) >= 2 else 10.0

    found = Machine(cost).search()
    assert found.ms == 1.0


def test_slow_candidates_are_cut_early() -> None:
    machine = Machine(lambda choice: 10.0 if str(choice) == "tiles A=8 B=1 C=3" else 80.0)
    found = machine.search()
    assert str(found.best) == "tiles A=8 B=1 C=3"
    assert found.ms == found.default_ms == 10.0
    del machine.samples[str(found.best)]
    assert set(machine.samples.values()) == {1}
    assert found.tally.cut == found.tally.tried == len(machine.samples) > 5


def test_no_candidate_is_tried_twice() -> None:
    seen: list[str] = []
    machine = Machine(bowl)
    prepare = machine.prepare

    def noting(choice: Choice) -> Trial:
        seen.append(str(choice))
        return prepare(choice)

    machine.prepare = noting  # type: ignore[method-assign]
    machine.search()
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("build_s", [0.02, 0.4])
def test_the_deadline_is_kept(seconds: float, build_s: float) -> None:
    machine = Machine(bowl, build_s)
    start = machine.now
    found = machine.search(seconds)
    # The default is timed at any rate; nothing else may begin that does not fit.
    least = build_s + 3 * found.default_ms / 1e3
    assert machine.now - start <= max(seconds, least) + 0.1
    assert found.tally.tried < 40


def test_more_time_finds_no_less() -> None:
    results = [Machine(bowl, 0.4).search(seconds).ms for seconds in (0.5, 3.0, 30.0)]
    assert results == sorted(results, reverse=True)
    assert results[0] > results[-1] == pytest.approx(10)


def test_a_gain_within_the_noise_is_no_gain() -> None:
    found = Machine(lambda choice: 10.0 if choice.values.get("B") == 1 else 9.8).search()
    assert str(found.best) == "tiles A=8 B=1 C=3"
    assert found.ms == found.default_ms


def test_a_machine_that_speeds_up_makes_no_winner() -> None:
    """Every later sample is faster, of the incumbent too: only side by side they compare."""
    machine = Machine(lambda _choice: 10.0)
    machine.load = lambda now: 0.2 if now > 100.3 else 1.0
    found = machine.search()
    assert found.ms == found.default_ms


def test_bursts_of_other_work_make_no_winner() -> None:
    """Two samples in five take much longer, whoever runs: medians of a few often differ."""
    noise = random.Random(3)
    machine = Machine(lambda _choice: 10.0)
    machine.load = lambda _now: 2.5 if noise.random() < 0.4 else 1.0
    found = machine.search()
    assert str(found.best) == "tiles A=8 B=1 C=3"
    assert found.tally.tried > 20


def test_a_winner_is_found_among_bursts_of_other_work() -> None:
    noise = random.Random(4)
    machine = Machine(lambda choice: 7.0 if choice.values.get("C") == 2 else 10.0)
    machine.load = lambda _now: 1.3 if noise.random() < 0.2 else 1.0
    assert machine.search().best.values["C"] == 2


def test_one_outlier_does_not_cut_the_best() -> None:
    machine = Machine(lambda choice: 2.0 if str(choice) == "rows A=4 L=64" else 10.0)
    spikes = iter([1.0] * 4 + [7.0])
    machine.load = lambda _now: next(spikes, 1.0)
    assert str(machine.search().best) == "rows A=4 L=64"


def test_refused_candidates_are_counted_and_passed_over() -> None:
    machine = Machine(bowl)
    prepare = machine.prepare

    def fussy(choice: Choice) -> Trial:
        if choice.variant.name == "rows":
            raise Refused("does not build")
        if choice.values.get("C") == 1:
            raise Refused("wrong result")
        return prepare(choice)

    machine.prepare = fussy  # type: ignore[method-assign]
    found = machine.search()
    assert str(found.best) == "tiles A=32 B=4 C=4"
    assert found.tally.refused["does not build"] >= 1
    assert sum(found.tally.refused.values()) < found.tally.tried


def test_a_default_that_does_not_run_ends_the_search() -> None:
    machine = Machine(bowl)

    def failing(choice: Choice) -> Trial:
        raise Refused("does not run")

    machine.prepare = failing  # type: ignore[method-assign]
    with pytest.raises(Refused, match="does not run"):
        machine.search()


def test_a_search_is_repeatable() -> None:
    first, second = (Machine(bowl, 0.3).search(5.0) for _ in range(2))
    assert first == second


def test_a_space_holds_the_variants_that_apply() -> None:
    space = Space.of(FAMILY, CALL, FACTS)
    assert [v.name for v in space.variants] == ["tiles", "rows", "naive"]
    assert space.size == 6 * 4 * 4 + 4 * 3 + 2
    assert [v.name for v in Space.of(FAMILY, CALL, FACTS, without="naive").variants] == [
        "tiles",
        "rows",
    ]


def test_known_choices_are_tried_first() -> None:
    rows = FAMILY.variants[2]
    known = Choice(rows, {"A": 8, "L": 16})
    space = Space.of(FAMILY, CALL, FACTS, (known,))
    assert [str(choice) for choice in space.heads] == [
        "tiles A=8 B=1 C=3",
        "rows A=8 L=16",
        "rows A=4 L=64",
        "naive L=64",
    ]


def test_neighbours_are_one_step_of_one_tunable_away() -> None:
    tiles = FAMILY.variants[1]
    steps = {
        str(c)
        for c in Space.of(FAMILY, CALL, FACTS).neighbours(Choice(tiles, {"A": 1, "B": 3, "C": 2}))
    }
    # A starts at its end; B has a value of its own between the declared ones.
    assert steps == {
        "tiles A=2 B=3 C=2",
        "tiles A=1 B=2 C=2",
        "tiles A=1 B=4 C=2",
        "tiles A=1 B=3 C=1",
        "tiles A=1 B=3 C=3",
    }
