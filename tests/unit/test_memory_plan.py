"""Memory of a step as numbers: lifetimes as compiled, and choices close to the best there is."""

from __future__ import annotations

import gc
import weakref
from itertools import combinations

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.base.units import parse_bytes
from coexec.budget.amounts import available_bytes, budget_bytes
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import Setting, step_problem
from coexec.core.program import SCRATCH
from coexec.memory.chain import segments
from coexec.memory.choose import choose, forget_problems
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepNode, StepProblem
from coexec.steps.builder import Recipe
from tests.runtimes import THOROUGH


def chain(sizes: list[int], costs: list[float]) -> StepProblem:
    """Layers y[i] = f(y[i-1]); the gradient of layer i reads dy[i], y[i] and y[i-1]."""
    depth = len(sizes)
    forward = [
        StepNode(f"f{i}", (i - 1,) if i else (), (i,), costs[i], forward=True) for i in range(depth)
    ]
    backward = [
        StepNode(
            f"b{i}",
            tuple([depth + i + 1] if i + 1 < depth else []) + ((i, i - 1) if i else (i,)),
            (depth + i,),
            2 * costs[i],
        )
        for i in reversed(range(depth))
    ]
    names = [f"y{i}" for i in range(depth)] + [f"dy{i}" for i in range(depth)]
    return StepProblem((*forward, *backward), tuple(names), (*sizes, *sizes))


def optimum(problem: StepProblem, budget: int) -> float | None:
    """Time of the fastest step within a budget, by trying every set of activations to drop."""
    best: float | None = None
    for count in range(len(problem.candidates) + 1):
        for dropped in combinations(problem.candidates, count):
            recomputed = problem.recomputed(dropped)
            extra = problem.extra_us(recomputed)
            if (best is None or extra < best) and usage(problem, recomputed).peak <= budget:
                best = extra
    return None if best is None else problem.total_us + best


@pytest.mark.parametrize("seed", range(6))
def test_choices_are_within_5_percent_of_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in rng.integers(1, 16, 9) * 64]
    problem = chain(sizes, [float(cost) for cost in rng.uniform(1, 20, 9)])
    whole = usage(problem).peak
    assert len(segments(problem)) >= len(sizes) - 1
    for share in (0.9, 0.75, 0.6):
        budget = int(share * whole)
        best = optimum(problem, budget)
        if best is None:
            continue
        found = choose(problem, budget)
        assert found.peak <= budget
        assert problem.total_us + found.extra_us <= 1.05 * best


def test_blocks_are_recomputed_one_by_one_where_together_they_need_too_much() -> None:
    sizes = [16, 16, 16, 8] * 16
    problem = chain(sizes, [1.0] * len(sizes))
    tight = int(0.16 * usage(problem).peak)  # the ends of all blocks take 0.14
    found = choose(problem, tight)
    assert found.peak <= tight
    assert found.alone
    assert found.extra_us <= 2 * len(sizes)
    together = usage(problem, found.recomputed)
    assert together.peak > tight
    assert together.extra_us < found.extra_us


def test_what_fits_is_left_alone_and_what_cannot_fit_is_as_small_as_it_gets() -> None:
    problem = chain([100] * 6, [1.0] * 6)
    whole = usage(problem).peak
    assert whole == 600 + 100  # all of y, and the first gradient
    assert not choose(problem, whole).recomputed
    assert usage(problem, choose(problem, 1).recomputed).peak < whole


def test_lifetimes_on_paper_are_those_of_the_compiled_step() -> None:
    model = coexec.load(zoo.build("sensor_cnn", batch=8))
    recipe = Recipe(SoftmaxCrossEntropy(), SGD(0.01))
    learner = coexec.Trainer(model, recipe.loss, recipe.optimizer, [THOROUGH[0]])
    steps = BudgetedSteps(model, recipe, learner.processors, "1GiB")
    arrays = {"x": np.zeros((8, 6, 100), np.float32)}
    problem = step_problem(steps.lower(Setting(recipe), arrays), lambda _call: 1.0)
    for share in (1.0, 0.8, 0.7):
        choice = choose(problem, int(share * usage(problem).peak))
        lowered = steps.lower(Setting(recipe, choice.names(problem)), arrays)
        program = lowered.programs[0]
        live = max(live for each in program.executables for _, live in each.arena_use())
        # Where the last node of a fused group stands, it still reads what its first one alone would
        # have let go: one activation at most.
        assert choice.peak <= live <= choice.peak + max(problem.nbytes)
        arena = max(b.nbytes for b in program.buffers if b.role == SCRATCH)
        assert live <= arena <= 1.08 * live


def test_a_search_leaves_no_problem_behind() -> None:
    problem = chain([8, 16, 8, 16, 8], [1.0] * 5)
    choose(problem, 32)
    held = weakref.ref(problem)
    del problem
    gc.collect()
    assert held() is not None  # it may be asked for again while the search goes on
    forget_problems()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(
    ("text", "nbytes"), [("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("800MB", 800_000_000)]
)
def test_amounts_of_memory(text: str, nbytes: int) -> None:
    assert parse_bytes(text) == budget_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["512", "MiB", "-1MiB", "0MiB", "12parsec", ""])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no amount of memory: write 512MiB"):
        budget_bytes(text)


def test_auto_takes_a_share_of_what_is_available() -> None:
    assert 0 < budget_bytes("auto") < available_bytes() * 1.1
