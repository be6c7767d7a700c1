"""Greedy descent: what leads to a repetition is let go where holding it for others is too much."""

from __future__ import annotations

from coexec.memory.choose import choose
from coexec.memory.greedy import choose as descend
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepNode, StepProblem

SIZES = (0, 100, 100, 10, 10, 1, 100, 100, 150, 10)
"""Of x, a, b, y and the gradients of y, of b's weight, of b and of a; of z and its result."""


def layer() -> StepProblem:
    """``b`` may be written over ``a``; first a weight's gradient needs ``b``, then that of a ``a``.

    With ``a`` made again once for both, it is there beside ``b`` (100 + 100 + 10); twice, never.
    Neither can wait while ``z`` is there.
    """
    nodes = (
        StepNode("a", (0,), (1,), 2.0, forward=True),
        StepNode("b", (1,), (2,), 1.0, forward=True, in_place=((2, 1),)),
        StepNode("y", (2,), (3,), 1.0, forward=True),
        StepNode("z", (3,), (8,), 1.0, forward=True),
        StepNode("result", (8,), (9,), 1.0, forward=True),
        StepNode("loss", (9,), (4,), 1.0),
        StepNode("weight", (4, 2), (5,), 1.0),
        StepNode("gradient of b", (4,), (6,), 1.0),
        StepNode("gradient of a", (6, 1), (7,), 1.0, in_place=((7, 6),)),
        StepNode("update", (7, 5), (), 0.0, update=True),
    )
    return StepProblem(nodes, tuple("xabyefghzr"), SIZES)


def test_a_repetition_is_made_twice_where_once_holds_too_much() -> None:
    problem = layer()
    once = problem.recomputed((1, 2))
    assert usage(problem, once).peak == 211
    for choice in (choose(problem, 205), descend(problem, 205)):
        assert choice.peak == usage(problem, choice.recomputed, choice.alone).peak <= 205
        assert choice.alone == {2}
        assert choice.extra_us == 2.0 + 1.0 + 2.0


def test_nothing_is_made_twice_where_once_fits() -> None:
    choice = choose(layer(), 211)
    assert choice.peak <= 211
    assert not choice.alone
    assert choice.extra_us <= 3.0
