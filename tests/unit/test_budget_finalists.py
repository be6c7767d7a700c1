"""Forms that are predicted to be about as fast: which are run, and that their runs decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.budget.finalists import MOST, fastest, finalists, title
from coexec.budget.settings import Setting
from coexec.budget.techniques import MicroBatches, Offer
from coexec.budget.variants import Found, Variant
from coexec.memory.problem import StepNode, StepProblem
from coexec.steps.builder import Recipe

PLAIN = Recipe(SoftmaxCrossEntropy(), SGD(0.01))
NOTHING = StepProblem((), (), ())


def form(recipe: Recipe, step_us: float, *recompute: str) -> Found:
    technique = MicroBatches() if recipe.micro_batches > 1 else None
    offer = Offer(recipe, f"{recipe.micro_batches} parts")
    variant = Variant(offer, 1000, NOTHING, {}, (), technique)
    return Found(Setting(recipe, recompute), variant, 100, step_us)


def test_each_way_to_compute_comes_before_a_second_of_one_way() -> None:
    parts = form(replace(PLAIN, micro_batches=2), 10.0)
    early_parts = form(replace(PLAIN, micro_batches=2, updates="early"), 11.0)
    again = form(PLAIN, 12.0, "a", "b")
    early_again = form(replace(PLAIN, updates="early"), 13.0, "a")
    found = finalists([early_again, again, early_parts, parts])
    assert found == [parts, again, early_parts, early_again]


def test_a_technique_that_changes_nothing_makes_no_form_of_its_own() -> None:
    again = form(PLAIN, 12.0, "a")
    masked = form(replace(PLAIN, activations="mask"), 12.0, "a")
    assert finalists([again, masked]) == [again]


def test_no_more_forms_are_run_than_there_is_time_for() -> None:
    many = [form(PLAIN, 10.0 + number, str(number)) for number in range(2 * MOST)]
    assert finalists(many) == many[:MOST]


def test_runs_decide_which_form_is_the_fastest() -> None:
    parts, again = form(replace(PLAIN, micro_batches=2), 10.0), form(PLAIN, 11.0, "a")

    def times(settings: Sequence[Setting]) -> list[float | None]:
        return [25.0 if each.recipe.micro_batches > 1 else 20.0 for each in settings]

    best, ran = fastest([parts, again], times)
    assert best is again
    assert list(ran.items()) == [("rematerialisation (1 tensors)", 20.0), (title(parts), 25.0)]
    assert title(parts) == "micro-batches (2 parts)"


def test_what_a_step_waits_for_pages_counts_beside_its_run() -> None:
    again, paged = form(PLAIN, 10.0, "a"), form(replace(PLAIN, paging=0.5), 11.0)
    wait = StepNode("wait", (), (), cost_us=6000.0, repeatable=False)
    problem = StepProblem((StepNode("conv", (), (), cost_us=50.0), wait), (), ())
    paged = replace(paged, variant=replace(paged.variant, problem=problem))
    assert fastest([again, paged], lambda _settings: [20.0, 15.0])[0] is again
    assert fastest([again, paged], lambda _settings: [22.0, 15.0])[0] is paged


def test_without_a_run_of_the_fastest_predicted_predictions_decide() -> None:
    parts, again = form(replace(PLAIN, micro_batches=2), 10.0), form(PLAIN, 11.0, "a")
    assert fastest([parts, again], lambda _settings: [None, 1.0]) == (parts, {})
