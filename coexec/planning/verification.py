"""Plans that were run: predictions choose what is worth trying, the clock chooses the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import comb
from statistics import median

import numpy as np
import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.timeline import timeline_of
from coexec.core.types import Array
from coexec.placement.policies.table import Outcome, outcome_of
from coexec.placement.problem import Problem, Schedule
from coexec.planning.planner import Planning
from coexec.session import Session
from coexec.training.trainer import Trainer

PLANS = 2
"""Best predicted plans on several processors that are run."""
SECONDS, LEAST_ROUNDS = 3.0, 9
LEAST_STEPS = 8
"""Rounds of training steps, which are long: just enough that one disturbed turn decides nothing."""
VIRTUAL_ROUNDS = 2
"""In virtual time nothing disturbs a run but what the simulation draws by chance."""
WORTH, CONFIDENCE = 0.02, 0.95
"""A plan on several processors has to gain this share of the time of the best one alone, and that
so surely: with fewer turns or in a noisy hour, the one that was lucky would be taken."""
Actions = Mapping[str, Callable[[], object]]
"""What one run by each plan is, by its name."""
Samples = Mapping[str, Sequence[float]]
"""Microseconds of each turn by name; turns of the same number were neighbours."""


@dataclass(frozen=True)
class Verified:
    """The median microseconds of a run of each plan that was tried.

    ``planning`` has the fastest as its choice, by ``name``. Names are those of policies, or ``only
    NAME`` for all nodes on one processor.
    """

    name: str
    planning: Planning
    measured_us: Mapping[str, float]
    predicted_us: Mapping[str, float]


def verify(
    model: ir.Model,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    planning: Planning,
    seconds: float = SECONDS,
) -> Verified:
    """Run the best predicted plans and each processor alone, in turns, and take the fastest.

    ``planning`` is of ``model`` for inference. Plans differ: of equal ones one is run. Simulated
    processors run in virtual time, a few times whatever ``seconds`` says.
    """

    def action(plan: Plan) -> Callable[[], object]:
        session = Session(model, processors, follow=plan)
        return lambda: session.run(feeds)

    return _verified(planning, action, lambda actions: timed(actions, processors, seconds))


def verify_training(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    labels: Array,
    planning: Planning,
    seconds: float = SECONDS,
) -> Verified:
    """Run steps by the best predicted plans and on each processor alone, as :func:`verify` does.

    Steps are those of trainers like ``trainer``, which trains nothing here.

    Raises:
        DeviceMemoryError: a processor has not the memory for all of them at once.
        NonFiniteLoss: steps on one batch, again and again, led to a loss that is none.
    """

    def action(plan: Plan) -> Callable[[], object]:
        own = trainer.with_plan(plan)
        return lambda: own.step(feeds, labels)

    def measured(actions: Actions) -> Samples:
        return timed(actions, trainer.processors, seconds, LEAST_STEPS)

    return _verified(planning, action, measured)


def _verified(
    planning: Planning,
    action: Callable[[Plan], Callable[[], object]],
    measured: Callable[[Actions], Samples],
) -> Verified:
    """The choice among the candidates, by what following their plans is measured to take."""
    outcomes = candidates(planning)
    samples = measured({name: action(planning.plan_of(each)) for name, each in outcomes.items()})
    name = choose(samples)
    predicted = {each: outcome.makespan_us for each, outcome in outcomes.items()}
    return Verified(name, planning.choosing(outcomes[name]), medians(samples), predicted)


def timed(
    actions: Actions,
    processors: Mapping[str, Processor],
    seconds: float = SECONDS,
    least_rounds: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Microseconds of turns of each action by the clock of the processors that it runs on."""
    timeline = timeline_of(next(iter(processors.values())))
    if timeline is None:
        return turns(actions, seconds, least_rounds=least_rounds)
    return turns(actions, 0.0, lambda: timeline.now_ns() * 1e-9, VIRTUAL_ROUNDS)


def medians(samples: Samples) -> dict[str, float]:
    """Of each."""
    return {name: median(times) for name, times in samples.items()}


def candidates(planning: Planning) -> dict[str, Outcome]:
    """Each processor alone, where it executes all, and the best predicted plans on several.

    The choice of the planning comes first, whatever its policy is. Plans of different policies
    that are run alike count once.
    """
    problem = planning.whole.problem
    found = {
        f"only {unit.name}": outcome_of(problem, f"only {unit.name}", _alone(problem, number))
        for number, unit in enumerate(problem.units)
        if np.isfinite(problem.time_us[:, number]).all()
    }
    ranking = planning.ranking
    ranked = (ranking.chosen, *ranking.outcomes)
    several = [o for o in ranked if len(set(o.plain.schedule.units)) > 1]
    found.update((outcome.policy, outcome) for outcome in _different(planning, several)[:PLANS])
    return found or {ranking.chosen.policy: ranking.chosen}


def _different(planning: Planning, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first of those whose plans are run alike, whoever made them and whatever they predict."""
    seen: list[Plan] = []
    found = []
    for outcome in outcomes:
        plan = replace(planning.plan_of(outcome), policy="", predicted_us=None)
        if plan not in seen:
            seen.append(plan)
            found.append(outcome)
    return found


def in_turns(
    actions: Actions,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least_rounds: int = LEAST_ROUNDS,
) -> dict[str, float]:
    """Median microseconds of the :func:`turns` of each action."""
    return medians(turns(actions, seconds, clock, least_rounds))


def turns(
    actions: Actions,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least_rounds: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Microseconds of each action, in turns, so that all see the same disturbances.

    Each turn runs twice and counts once: the first brings back what others drove from the caches.
    """
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    began, rounds = clock(), 0
    while rounds < least_rounds or clock() - began < seconds:
        for name, action in actions.items():
            action()
            start = clock()
            action()
            samples[name].append((clock() - start) * 1e6)
        rounds += 1
    return samples


def choose(samples: Samples) -> str:
    """The fastest; a single processor unless several are surely faster by :data:`WORTH`.

    Turns that were neighbours are compared, so that what disturbed both counts for neither.
    """
    middle = medians(samples)
    alone = [name for name in samples if name.startswith("only ")]
    if not alone:
        return min(middle, key=lambda name: middle[name])
    single = min(alone, key=lambda name: middle[name])
    ratios = {
        name: [us / one for us, one in zip(times, samples[single], strict=True)]
        for name, times in samples.items()
        if name not in alone
    }
    sure = [name for name, found in ratios.items() if at_most(found) < 1 - WORTH]
    return min(sure, key=lambda name: median(ratios[name]), default=single)


def at_most(values: Sequence[float]) -> float:
    """What their median is not above, with :data:`CONFIDENCE`, whatever they are drawn from.

    The order statistic that too few would lie below otherwise; the largest of four or less.
    """
    count = len(values)
    # How likely it is that so many, or fewer, are below their median: each is, or is not.
    likely = [ways / (1 << count) for ways in accumulate(comb(count, k) for k in range(count))]
    below = sum(chance < CONFIDENCE for chance in likely)
    return sorted(values)[min(below, count - 1)]


def _alone(problem: Problem, unit: int) -> Schedule:
    count = len(problem.tasks)
    return Schedule((unit,) * count, tuple(range(count)))
