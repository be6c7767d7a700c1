"""A plan within a budget is made again for less until its program fits: rounds, with no device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import MemoryBudgetError
from coexec.budget.search import ROUNDS, plan_memory
from coexec.budget.settings import Lowered, Setting
from coexec.budget.techniques import Question
from coexec.core.program import SCRATCH, BufferSpec, Program
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepNode, StepProblem
from coexec.steps.builder import Recipe

PLAIN = Recipe(SoftmaxCrossEntropy(), SGD(0.01))
Beside = Callable[[int], int]
"""Bytes that a program takes beside its lifetimes, by the number of tensors made again."""


def layers(count: int, nbytes: int) -> StepProblem:
    """Layers of equal size and time; each is read again by its own gradient, the last one first."""
    forward = [StepNode(f"f{i}", (), (i,), 1.0, forward=True) for i in range(count)]
    backward = [StepNode(f"b{i}", (i,), (count + i,), 1.0) for i in reversed(range(count))]
    names = [f"y{i}" for i in range(count)] + [f"dw{i}" for i in range(count)]
    sizes = [nbytes] * count + [0] * count
    return StepProblem((*forward, *backward), tuple(names), tuple(sizes))


class Lowering:
    """Programs whose arena takes what lifetimes say, and ``beside`` as well; peaks of all made."""

    def __init__(self, problem: StepProblem, beside: Beside) -> None:
        self.problem = problem
        self.beside = beside
        self.peaks: list[int] = []

    def __call__(self, setting: Setting) -> Lowered:
        again = setting.recompute
        paper = usage(self.problem, *self.problem.numbers(again)).peak
        self.peaks.append(paper + self.beside(len(again)))
        arena = BufferSpec("arena", "made up", self.peaks[-1], SCRATCH)
        return Lowered(ir.Graph([], [], nodes=[]), (Program((), (), (arena,), (), (), ()),))


Make = Callable[[int, Beside], Lowering]


@pytest.fixture
def lowering(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a lowering of so many layers of 100 bytes, which the search takes for a step."""

    def make(count: int, beside: Beside) -> Lowering:
        problem = layers(count, 100)
        monkeypatch.setattr("coexec.budget.search.step_problem", lambda lowered, cost: problem)
        return Lowering(problem, beside)

    return make


def plan(lower: Lowering, budget: int) -> tuple[int, tuple[str, ...]]:
    """The peak in bytes that a search by recomputing alone ends with, and what it recomputes."""
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    question = Question(model, PLAIN, {"x": np.zeros(1, np.float32)})
    found = plan_memory(question, budget, lower, lambda call: 0.0, techniques=())
    return found.peak_bytes, found.setting.recompute


def test_a_plan_whose_program_takes_more_is_made_again_for_less_than_it_takes_itself(
    lowering: Make,
) -> None:
    # Two again are 600 on paper, 90 less than asked for, and 700 as a program: to ask for the 10
    # bytes less that it is above the budget would lead to the same plan, round after round.
    lower = lowering(8, lambda again: 100 if again else 0)
    peak, again = plan(lower, 690)
    assert lower.peaks == [800, 700, 600]
    assert (peak, len(again)) == (600, 3)


def test_a_plan_whose_program_fits_is_not_made_again(lowering: Make) -> None:
    lower = lowering(8, lambda again: 0)
    peak, again = plan(lower, 690)
    assert lower.peaks == [800, 600]
    assert (peak, len(again)) == (600, 2)


def test_rounds_end_and_a_refusal_names_no_more_than_the_plain_step_takes(lowering: Make) -> None:
    lower = lowering(12, lambda again: 300 * again)
    with pytest.raises(MemoryBudgetError) as refused:
        plan(lower, 800)
    assert refused.value.least_bytes == lower.peaks[0] == min(lower.peaks)
    assert len(lower.peaks) <= 1 + 2 * ROUNDS
