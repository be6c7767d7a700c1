"""Bytes in use with activations recomputed: the fast way agrees with going through all events."""

from __future__ import annotations

import random

import pytest

from coexec.memory.chain import Chain
from coexec.memory.choose import choose
from coexec.memory.lifetimes import usage
from coexec.memory.live_bytes import live_bytes
from coexec.memory.lower_bound import peak_bound, widest_node
from coexec.memory.problem import StepNode, StepProblem


def random_problem(choose: random.Random) -> StepProblem:
    """A forward pass with skips, and a backward pass that reads its results in reverse order.

    There are views, second results, operators that exist with all results only, working memory, and
    results that may be written over operands.
    """
    nodes: list[StepNode] = []
    sizes = [0]
    count = choose.randint(4, 14)
    for index in range(count):
        reads = tuple(dict.fromkeys(choose.choices(range(max(len(sizes) - 4, 0), len(sizes)), k=2)))
        nodes.append(_node(choose, f"f{index}", reads, sizes, forward=True))
    forward = list(nodes)
    gradient = len(sizes)
    sizes.append(choose.randint(1, 9) * 8)
    nodes.append(StepNode("loss", forward[-1].writes[:1], (gradient,), 1.0))
    for node in reversed(forward):
        reads = (gradient, *choose.sample((*node.reads, *node.writes), choose.randint(1, 2)))
        nodes.append(_node(choose, f"{node.name}_grad", tuple(dict.fromkeys(reads)), sizes))
        gradient = nodes[-1].writes[0]
    tensors = tuple(f"t{index}" for index in range(len(sizes)))
    return StepProblem(tuple(nodes), tensors, tuple(sizes))


def _node(
    choose: random.Random,
    name: str,
    reads: tuple[int, ...],
    sizes: list[int],
    *,
    forward: bool = False,
) -> StepNode:
    view = choose.random() < 0.2
    writes = tuple(range(len(sizes), len(sizes) + (1 if view else choose.randint(1, 2))))
    for _ in writes:
        same = sizes[reads[0]] if view or choose.random() < 0.5 else 0
        sizes.append(same or choose.randint(1, 9) * 8)
    return StepNode(
        name,
        reads,
        writes,
        choose.random(),
        workspace=0 if view else choose.choice((0, 8, 40)),
        forward=forward,
        view=view,
        whole=choose.random() < 0.3,
        in_place=() if view else tuple((writes[0], read) for read in reads),
    )


@pytest.mark.parametrize("seed", range(60))
def test_live_bytes_are_those_of_all_events_one_by_one(seed: int) -> None:
    choose = random.Random(seed)
    problem = random_problem(choose)
    for _ in range(8):
        candidates = problem.candidates
        dropped = choose.sample(candidates, choose.randint(0, len(candidates)))
        alone = choose.sample(dropped, choose.randint(0, len(dropped)))
        recomputed = problem.recomputed(dropped)
        whole, fast = usage(problem, recomputed, alone), live_bytes(problem, recomputed, alone)
        assert fast.live.tolist() == list(whole.live)
        assert fast.extra_us == whole.extra_us
        assert fast.excess(whole.peak - 8) == whole.excess(whole.peak - 8)


@pytest.mark.parametrize("seed", range(60))
def test_no_choice_goes_below_the_bound(seed: int) -> None:
    choose = random.Random(seed)
    problem = random_problem(choose)
    bound, candidates = peak_bound(problem), problem.candidates
    assert widest_node(problem) <= bound
    for count in range(len(candidates) + 1):
        recomputed = problem.recomputed(choose.sample(candidates, count))
        alone = choose.sample(sorted(recomputed), choose.randint(0, len(recomputed)))
        assert bound <= live_bytes(problem, recomputed, alone).peak


def test_the_bound_counts_what_waits_and_is_never_made_again() -> None:
    """Two gradients of parameters wait for the update; the activation they are made of need not."""
    nodes = (
        StepNode("f0", (0,), (1,), forward=True),
        StepNode("f1", (1,), (2,), forward=True),
        StepNode("g1", (2, 1), (3,)),
        StepNode("g0", (2,), (4,)),
        StepNode("update", (3, 4), (5,), update=True),
    )
    problem = StepProblem(nodes, tuple("xabcde"), (0, 50, 10, 30, 30, 1))
    assert widest_node(problem) == 90
    assert peak_bound(problem) == 90
    wide = StepProblem(nodes, tuple("xabcde"), (0, 50, 40, 30, 60, 1))
    assert widest_node(wide) == 120
    assert peak_bound(wide) == 30 + 40 + 60


@pytest.mark.parametrize("seed", [11, 291])
def test_what_is_asked_for_below_the_widest_node_is_chosen_as_for_that(seed: int) -> None:
    """Aimed any lower, descent would recompute more for bytes that nothing goes below."""
    problem = random_problem(random.Random(seed))
    widest = widest_node(problem)
    assert choose(problem, 0) == choose(problem, widest // 2) == choose(problem, widest)


@pytest.mark.parametrize("seed", range(8))
def test_a_chain_fits_wherever_it_has_a_plan_down_to_single_bytes(seed: int) -> None:
    problem = random_problem(random.Random(seed))
    chain = Chain(problem)
    peak = live_bytes(problem).peak
    fitting = [chain.fits(budget) for budget in range(peak + 1)]
    assert fitting == [chain.plan(budget) is not None for budget in range(peak + 1)]
    assert fitting[chain.least(0, peak)] or not any(fitting)


def test_repetitions_take_time_and_move_the_peak() -> None:
    """Three activations of 100 bytes; the last gradient needs the first one, made again."""
    nodes = (
        StepNode("f0", (0,), (1,), 2.0, forward=True),
        StepNode("f1", (1,), (2,), 3.0, forward=True),
        StepNode("f2", (2,), (3,), 4.0, forward=True),
        StepNode("g2", (3, 2), (4,), 1.0),
        StepNode("g1", (4, 1), (5,), 1.0),
    )
    problem = StepProblem(nodes, tuple("xabcde"), (0, 100, 100, 100, 100, 100))
    assert live_bytes(problem).live.tolist() == [100, 200, 300, 400, 300]
    again = live_bytes(problem, [1])
    assert again.live.tolist() == [100, 200, 200, 300, 200, 300]
    assert again.extra_us == 2.0
    assert (again.peak, again.excess(250)) == (300, 100)
