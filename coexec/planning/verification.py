"""Plans that were run: predictions choose what is worth trying, the clock chooses the plan.

Each processor alone is run first. What that says of the times of its calls goes into the plans that
are tried then, and with what those take it is kept for later predictions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from math import comb
from statistics import median

import numpy as np
import onnx_ir as ir

from coexec.core.events import RUN, Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.timeline import timeline_of
from coexec.core.types import Array
from coexec.placement.policies.table import BATCH_DIVIDED, FALLBACK, WAYS, Outcome, outcome_of
from coexec.planning.corrections import (
    Run,
    alone_corrections,
    everything_on,
    learn_alone,
    learn_way,
    team,
)
from coexec.planning.planner import Planning, after_runs, measured_again
from coexec.runtime.adapt import busy_us
from coexec.session import Session
from coexec.training.trainer import Trainer

PLANS = 2
"""Best predicted plans on several processors that are run: of different ways to spread work, where
there are such. Predictions of one way are wrong alike."""
CLOSE = 3.0
"""Where no processor takes so many times what another one does for a step, dividing the batch is
always tried."""
MORE_TIMES = 2
"""So often turns go on where they do not decide."""
FIRST_ROUNDS = 3
"""Of each processor alone, and as many that are traced, before plans on several are made."""
DOUBTED, DOUBT_SECONDS = 0.9, 2.0
"""Where a run computes for less than this share of what its calls say, they are measured again, for
so long on each processor."""
SECONDS, LEAST_ROUNDS = 3.0, 9
LEAST_STEPS = 8
"""Rounds of training steps, which are long: just enough that one disturbed turn decides nothing."""
VIRTUAL_ROUNDS = 2
"""In virtual time nothing disturbs a run but other apps and what the simulation draws."""
WORTH, CONFIDENCE = 0.02, 0.95
"""A plan on several processors has to gain this share of the time of the best one alone, and that
so surely: with fewer turns or in a noisy hour, the one that was lucky would be taken."""
ONLY = "only "
"""Names of plans of one processor begin so."""
Traced = Callable[[Trace | None], object]
"""A run that notes what happened, if asked to."""
Actions = Mapping[str, Callable[[], object]]
"""What one run by each plan is, by its name."""
Samples = Mapping[str, Sequence[float]]
"""Microseconds of each turn by name; turns of the same number were neighbours."""


@dataclass(frozen=True)
class Verified:
    """The median microseconds of a run of each plan that was tried.

    ``planning`` has the fastest as its choice, by ``name``. Names are those of policies, or ``only
    NAME`` for all nodes on one processor. ``predicted_us`` is from before any run of the same: of
    one processor by what was known, of several once each of them had run alone.
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

    def action(plan: Plan) -> Traced:
        session = Session(model, processors, follow=plan)
        return lambda trace: session.run(feeds, trace=trace)

    return _verified(planning, action, _Clock(processors, seconds))


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

    def action(plan: Plan) -> Traced:
        own = trainer.with_plan(plan)
        return lambda trace: own.step(feeds, labels, trace)

    return _verified(planning, action, _Clock(trainer.processors, seconds, LEAST_STEPS))


@dataclass(frozen=True)
class _Clock:
    """How plans are timed: as :func:`timed` says."""

    processors: Mapping[str, Processor]
    seconds: float
    least_rounds: int = LEAST_ROUNDS

    def first(self, actions: Actions) -> Samples:
        """A few turns only."""
        return timed(actions, self.processors, 0.0, FIRST_ROUNDS)

    def all(self, actions: Actions) -> Samples:
        """Turns enough to choose by."""
        return timed(actions, self.processors, self.seconds, self.least_rounds)


def _verified(planning: Planning, action: Callable[[Plan], Traced], clock: _Clock) -> Verified:
    """The choice among the candidates, by what following their plans is measured to take."""
    alone = _each_alone(planning)
    traced = {name: action(planning.plan_of(each)) for name, each in alone.items()}
    actions: dict[str, Callable[[], object]] = {n: partial(run, None) for n, run in traced.items()}
    computes: dict[str, float | None] = {}
    predicted = {name: each.makespan_us for name, each in alone.items()}
    problem = planning.whole.problem
    if alone and len(problem.units) > 1 and team(planning.costs, problem):
        found = medians(clock.first(actions))
        computes = {n.removeprefix(ONLY): _computing(run) for n, run in traced.items()}
        runs = {name: Run(found[f"{ONLY}{name}"], share) for name, share in computes.items()}
        planning = after_runs(_undisturbed(planning, runs), runs)
    outcomes = candidates(planning)
    for name, each in outcomes.items():
        predicted.setdefault(name, each.makespan_us)
        if name not in actions:
            actions[name] = partial(action(planning.plan_of(each)), None)
    samples = decided(clock.all, actions)
    _learn(planning, outcomes, samples, computes)
    name = choose(samples)
    return Verified(name, planning.choosing(outcomes[name]), medians(samples), predicted)


def _undisturbed(planning: Planning, runs: Mapping[str, Run]) -> Planning:
    """Planned by calls that were measured again where runs computed for less time than they say.

    They may have been measured in a busy second. (Steps of training have calls of other kinds, too:
    those of shares of a batch. They are corrected by runs alone.)
    """
    ground = planning.ground
    if ground.states.state:
        return planning
    found = alone_corrections(ground.known.problem, runs)
    doubted = [name for name, each in found.items() if each.factor < DOUBTED]
    return measured_again(planning, doubted, DOUBT_SECONDS)


def _computing(run: Traced) -> float | None:
    """The share of a run in which its processor computes; of some runs, the median.

    Nothing where a run says not how long it takes, or what computes in it.
    """
    shares = []
    for _ in range(FIRST_ROUNDS):
        trace = Trace()
        run(trace)
        whole_us = sum(event.duration_ns for event in trace.events if event.kind == RUN) / 1e3
        computing_us = sum(busy_us(trace.events).values())
        if not whole_us or not computing_us:
            return None
        shares.append(min(computing_us / whole_us, 1.0))
    return median(shares)


def _learn(
    planning: Planning,
    outcomes: Mapping[str, Outcome],
    samples: Samples,
    computes: Mapping[str, float | None],
) -> None:
    """Keep what runs took, for later predictions."""
    costs, ground = planning.costs, planning.ground
    members = team(costs, planning.whole.problem)
    if not members:
        return
    alone = {n.removeprefix(ONLY): each for n, each in samples.items() if n.startswith(ONLY)}
    learn_alone(ground.program, costs, ground.known.problem, alone, computes)
    single = _best_alone(samples)
    ratios = _ratios(samples, single)
    for name, outcome in outcomes.items():
        if outcome.way in WAYS:
            # Beside its neighbours in time: the machine may be faster now than when they ran alone.
            beside = median(ratios[name]) * outcomes[single].makespan_us if single else None
            learn_way(members, ground.program, outcome, samples[name], beside)
    for each in members:
        each.store.save()


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
    that are run alike count once. Where operators are refused, the order of processors that a user
    would write down is among them.
    """
    problem = planning.whole.problem
    found = _each_alone(planning)
    ranking = planning.ranking
    ranked = (ranking.chosen, *ranking.outcomes)
    several = [outcome for outcome in ranked if outcome.way in WAYS]
    different = _different(planning, several)
    real = team(planning.costs, problem)
    best = _best(different, batch=_always_by_batch(found)) if real else different[:PLANS]
    orders = [outcome for outcome in several if outcome.policy == FALLBACK]
    picked = _different(planning, [*best, *orders])
    found.update((outcome.policy, outcome) for outcome in picked)
    return found or {ranking.chosen.policy: ranking.chosen}


def _each_alone(planning: Planning) -> dict[str, Outcome]:
    """All nodes on each processor that executes all."""
    problem = planning.whole.problem
    return {
        f"{ONLY}{unit.name}": outcome_of(
            problem, f"{ONLY}{unit.name}", everything_on(problem, number)
        )
        for number, unit in enumerate(problem.units)
        if np.isfinite(problem.time_us[:, number]).all()
    }


def _always_by_batch(alone: Mapping[str, Outcome]) -> bool:
    """Whether two processors take about as long as each other."""
    times = sorted(outcome.makespan_us for outcome in alone.values())
    return len(times) > 1 and times[1] < CLOSE * times[0]


def _best(outcomes: Sequence[Outcome], *, batch: bool) -> list[Outcome]:
    """:data:`PLANS` of them: the first, the division of the ``batch``, then one of each way."""
    firsts = {outcome.way: outcome for outcome in reversed(outcomes)}
    divided = [firsts[BATCH_DIVIDED]] if batch and BATCH_DIVIDED in firsts else []
    others = [outcome for outcome in outcomes if firsts[outcome.way] is outcome]
    wanted = [*outcomes[:1], *divided, *others, *outcomes]
    return list({id(outcome): outcome for outcome in wanted}.values())[:PLANS]


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


def decided(timed: Callable[[Actions], Samples], actions: Actions) -> Samples:
    """Turns of ``actions``; more of those plans that seem to be worth it and are not surely so.

    In a noisy hour the first turns are too few, and what is lost then is lost in every later run.
    """
    samples = timed(actions)
    for _ in range(MORE_TIMES):
        single = _best_alone(samples)
        ratios = _ratios(samples, single)
        contenders = [
            name for name, found in ratios.items() if median(found) < 1 - WORTH <= at_most(found)
        ]
        if not contenders:
            break
        more = timed({name: actions[name] for name in (single, *contenders)})
        samples = {name: [*times, *more.get(name, ())] for name, times in samples.items()}
    return samples


def choose(samples: Samples) -> str:
    """The fastest; a single processor unless several are surely faster by :data:`WORTH`.

    Turns that were neighbours are compared, so that what disturbed both counts for neither.
    """
    single = _best_alone(samples)
    if not single:
        middle = medians(samples)
        return min(middle, key=lambda name: middle[name])
    ratios = _ratios(samples, single)
    sure = [name for name, found in ratios.items() if at_most(found) < 1 - WORTH]
    return min(sure, key=lambda name: median(ratios[name]), default=single)


def _best_alone(samples: Samples) -> str:
    """The fastest single processor; empty if there is none."""
    alone = {name: median(times) for name, times in samples.items() if name.startswith(ONLY)}
    return min(alone, key=lambda name: alone[name], default="")


def _ratios(samples: Samples, single: str) -> dict[str, list[float]]:
    """Of neighbouring turns of plans on several processors and of the ``single`` one.

    Some have fewer turns than it: the first ones.
    """
    return {
        name: [us / one for us, one in zip(times, samples[single], strict=False)]
        for name, times in samples.items()
        if single and not name.startswith(ONLY)
    }


def at_most(values: Sequence[float]) -> float:
    """What their median is not above, with :data:`CONFIDENCE`, whatever they are drawn from.

    The order statistic that too few would lie below otherwise; the largest of four or less.
    """
    count = len(values)
    # How likely it is that so many, or fewer, are below their median: each is, or is not.
    likely = [ways / (1 << count) for ways in accumulate(comb(count, k) for k in range(count))]
    below = sum(chance < CONFIDENCE for chance in likely)
    return sorted(values)[min(below, count - 1)]
