"""What to recompute and where, decided together, on machines that do not exist."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.budget.joint import decide, placed
from coexec.budget.repetitions import PlacedStep, Repeated
from coexec.memory.choose import choose
from coexec.memory.lifetimes import usage
from coexec.memory.problem import Choice, StepNode, StepProblem
from coexec.placement.problem import Problem, Task, Tensor, Unit

INF = float("inf")
SIZE = 1000


def step(
    first: list[float], second: list[float], *, latency: float = 0.0, silicon: str = ""
) -> PlacedStep:
    """A chain of layers with times of their forward passes on two processors.

    The gradient of a layer reads what it made and what it read. The second processor executes no
    backward pass. All runs on the first one; ``silicon`` is what both occupy.
    """
    depth = len(first)
    reads = [(i - 1,) if i else () for i in range(depth)]
    writes = [(i,) for i in range(depth)]
    for i in reversed(range(depth)):
        behind = (depth + i + 1,) if i + 1 < depth else ()
        reads.append((*behind, *((i, i - 1) if i else (i,))))
        writes.append((depth + i,))
    names = [f"f{i}" for i in range(depth)] + [f"b{i}" for i in reversed(range(depth))]
    tensors = [f"y{i}" for i in range(depth)] + [f"dy{i}" for i in range(depth)]
    times = [[a, b] for a, b in zip(first, second, strict=True)]
    times += [[10.0, INF]] * depth
    nodes = tuple(
        StepNode(name, read, wrote, times[i][0], forward=i < depth)
        for i, (name, read, wrote) in enumerate(zip(names, reads, writes, strict=True))
    )
    memory = StepProblem(nodes, tuple(tensors), (SIZE,) * len(tensors))
    made = {tensor: i for i, wrote in enumerate(writes) for tensor in wrote}
    places = np.full((3, 3), latency)
    problem = Problem(
        units=tuple(Unit(name, frozenset([silicon] if silicon else [])) for name in "ab"),
        tasks=tuple(Task(n, "Op", r, w) for n, r, w in zip(names, reads, writes, strict=True)),
        tensors=tuple(Tensor(name, SIZE, made[i]) for i, name in enumerate(tensors)),
        time_us=np.array(times),
        latency_us=places,
        us_per_byte=np.zeros((3, 3)),
        slowdown=np.ones((2, 2)),
        time_sigma=np.zeros((2 * depth, 2)),
        latency_sigma=np.zeros((3, 3)),
    )
    return PlacedStep(memory, problem, (0,) * len(names))


DEAR, CHEAP = [10.0, 4.0] * 5, [11.0, INF] * 5
"""What the second processor executes is dear on the first one, and what is cheap it refuses."""


def test_what_an_idle_processor_recomputes_costs_nothing() -> None:
    machine = step(DEAR, CHEAP)
    whole = machine.memory.total_us
    budget = usage(machine.memory).peak - 3 * SIZE
    joint = decide(machine, budget)
    assert joint is not None
    assert joint.peak <= budget
    assert joint.makespan_us == whole
    # First what to recompute, by what it takes where the step runs; then where.
    after = placed(machine, choose(machine.memory, budget), budget)
    assert after.peak <= budget
    assert after.makespan_us > whole
    again = {n: p for n, p in joint.evaluation.processors.items() if "#again" in n}
    assert set(again.values()) == {"b"}


@pytest.mark.parametrize("seed", range(4))
def test_deciding_together_is_never_slower_than_one_after_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = [float(t) for t in rng.uniform(2, 12, 10)]
    second = [float(t) if rng.random() < 0.6 else INF for t in rng.uniform(2, 20, 10)]
    machine = step(first, second, latency=1.0)
    for share in (0.8, 0.6, 0.5):
        budget = int(share * usage(machine.memory).peak)
        one_by_one = choose(machine.memory, budget)
        together = decide(machine, budget)
        if one_by_one.peak > budget:
            continue
        after = placed(machine, one_by_one, budget)
        assert together is not None
        assert after.peak > budget or together.makespan_us <= after.makespan_us
        assert machine.memory.total_us <= together.makespan_us


def test_processors_that_share_silicon_recompute_nothing_for_each_other() -> None:
    machine = step(DEAR, CHEAP, silicon="cores")
    budget = usage(machine.memory).peak - 3 * SIZE
    joint = decide(machine, budget)
    assert joint is not None
    assert joint.elsewhere == 0
    assert joint.makespan_us == machine.memory.total_us + 3 * 4.0


def test_a_slow_link_keeps_repetitions_where_they_are_read() -> None:
    machine = step(DEAR, CHEAP, latency=500.0)
    budget = usage(machine.memory).peak - 3 * SIZE
    joint = decide(machine, budget)
    assert joint is not None
    assert set(joint.evaluation.processors.values()) == {"a"}


def test_what_is_made_ahead_counts_until_it_is_read_and_no_more_is_made() -> None:
    machine = step([10.0] * 8, [1.0] * 8)
    dropped = machine.memory.recomputed(machine.memory.candidates[1:6:2])
    repeated = Repeated(machine, Choice(dropped, 0, 0.0))
    here, there = repeated.evaluated({}), repeated.evaluated({0: 1, 1: 1, 2: 1})
    assert there.makespan_us < here.makespan_us
    assert there.peak > here.peak
    last = there.order.index("f1#again")
    tasks = dict(zip(there.order, there.timeline.start_us, strict=True))
    ends = dict(zip(there.order, there.timeline.end_us, strict=True))
    # Two groups at most: the third waits until the reader of the first has been.
    reader = next(n for n in there.order[: last + 1] if n.startswith("b") and n != "b7")
    assert tasks["f1#again"] >= ends[reader]


def test_a_budget_that_nothing_meets_has_no_plan() -> None:
    assert decide(step(DEAR, CHEAP), SIZE) is None


def test_both_problems_must_be_of_the_same_nodes() -> None:
    machine = step(DEAR, CHEAP)
    fewer = replace(machine.memory, nodes=machine.memory.nodes[1:])
    with pytest.raises(ValueError, match="same nodes"):
        PlacedStep(fewer, machine.problem, machine.units)
