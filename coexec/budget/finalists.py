"""Forms of a step that keep a budget and are predicted to be about as fast: which are to be run.

Predictions add up times of calls. What a form does to caches, to the number of launches and to the
shapes that kernels like is not in them, so that the fastest of those predicted to be close is not
known before they were run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Protocol

from coexec.budget.settings import Setting
from coexec.budget.techniques import REMATERIALISATION
from coexec.budget.variants import Found
from coexec.steps.builder import Recipe

NEAR = 1.15
"""Times the fastest predicted: no form is run that is predicted to take longer."""
MOST = 8
"""Forms that are run."""
Times = Callable[[Sequence[Setting]], Sequence[float | None]]
"""Milliseconds of a step by each setting, as runs took; none of what was not run."""


class Runs(Protocol):
    """:data:`Times` that are known, or that runs will find."""

    def __call__(self, settings: Sequence[Setting]) -> Sequence[float | None]: ...

    def may_decide(self, first: Setting) -> bool:
        """Whether there is a time for the fastest predicted, or will be: else no others count."""


def finalists(found: Sequence[Found]) -> list[Found]:
    """The fastest predicted, the fastest of each other way to compute, then the next of each.

    Ways differ by more than when large parameters are updated.
    """
    ways: list[tuple[Recipe, list[Found]]] = []
    different: list[Found] = []
    for each in sorted(found, key=lambda one: one.step_us):
        if not any(_alike(each, other) for other in different):
            different.append(each)
    for each in different:
        way = replace(each.setting.recipe, updates="together")
        same = next((group for known, group in ways if known == way), None)
        if same is None:
            ways.append((way, same := []))
        same.append(each)
    groups = [group for _, group in ways]
    in_turns = chain.from_iterable(zip_longest(*groups))
    return [each for each in in_turns if each is not None][:MOST]


def fastest(forms: Sequence[Found], times: Times) -> tuple[Found, dict[str, float]]:
    """The fastest of forms by runs, and what each that was run took, in ms by its title.

    The first, which is predicted to be, unless it was run and another one took less. What steps
    are predicted to wait for pages counts, too: in a short run, the system's cache holds them.
    """
    found = zip(times([each.setting for each in forms]), forms, strict=True)
    ran = [(ms + _waits_ms(each), each) for ms, each in found if ms is not None]
    if not ran or ran[0][1] is not forms[0]:
        return forms[0], {}
    best = min(ran, key=lambda pair: pair[0])[1]
    return best, {title(each): ms for ms, each in sorted(ran, key=lambda pair: pair[0])}


def title(found: Found) -> str:
    """The techniques of a form with their settings."""
    uses = [
        f"{each.technique.name} ({each.offer.detail})"
        for each in found.variant.chain()
        if each.technique is not None
    ]
    count = len(found.setting.recompute)
    return ", ".join([*uses, *([f"{REMATERIALISATION} ({count} tensors)"] if count else [])])


def _waits_ms(found: Found) -> float:
    """What a step is predicted to wait for pages; all else of it may be repeated."""
    problem = found.variant.problem
    return sum(node.cost_us for node in problem.nodes if not node.repeatable) / 1e3


def _alike(one: Found, other: Found) -> bool:
    """Whether two forms are the same step: a technique may change nothing."""
    same_memory = one.peak == other.peak and one.setting.recompute == other.setting.recompute
    return same_memory and abs(one.step_us - other.step_us) < 1e-6 * one.step_us
