"""Plans that were run: predictions choose what is worth trying, the clock chooses the plan.

Each processor alone is run first. What that says of the times of its calls goes into the plans that
are tried then, and with what those take it is kept for later predictions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
import onnx_ir as ir

from coexec.core.events import RUN, Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.timeline import timeline_of
from coexec.core.types import Array
from coexec.placement.policies.table import (
    BATCH_DIVIDED,
    DIVIDED,
    FALLBACK,
    WAYS,
    Outcome,
    outcome_of,
)
from coexec.planning.corrections import (
    Run,
    alone_corrections,
    everything_on,
    learn_alone,
    learn_ways,
    team,
)
from coexec.planning.planner import Planning, after_runs, measured_again
from coexec.planning.traced import Followed, Tried, alike, balanced, starts_by_calls
from coexec.planning.turns import (
    LEAST_ROUNDS,
    ONLY,
    PATIENCE,
    SECONDS,
    Actions,
    Calm,
    Samples,
    choose,
    decided,
    medians,
    quiet,
    turns,
)
from coexec.runtime.adapt import busy_us
from coexec.session import Session
from coexec.training.trainer import Trainer

log = logging.getLogger(__name__)
PLANS = 2
"""Best predicted plans on several processors that are run: of different ways to spread work, where
there are such. Predictions of one way are wrong alike."""
CLOSE = 3.0
"""Where no processor takes so many times what another one does for a step, dividing the batch is
always tried."""
FIRST_ROUNDS, FIRST_SECONDS = 3, 0.5
"""Of each processor alone, before plans on several are made; and as many rounds that are traced."""
MORE_ROUNDS = 7
"""Of plans of which the faster one is improved."""
DOUBTED, DOUBT_SECONDS = 0.9, 2.0
"""Where a run computes for less than this share of what its calls say, they are measured again, for
so long on each processor."""
LEAST_STEPS = 8
"""Rounds of training steps, which are long: just enough that one disturbed turn decides nothing."""
VIRTUAL_ROUNDS = 2
"""In virtual time nothing disturbs a run but other apps and what the simulation draws."""
FIRST = " as first planned"
"""Names of plans that were made before these runs end so."""
Traced = Callable[[Trace | None], object]
"""A run that notes what happened, if asked to."""


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

    def follow(plan: Plan) -> Followed:
        session = Session(model, processors, follow=plan)
        return Followed(lambda trace: session.run(feeds, trace=trace), session.work)

    return _verified(planning, follow, _Clock(processors, seconds, Calm(PATIENCE * seconds)))


def verify_training(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    labels: Array | None,
    planning: Planning,
    seconds: float = SECONDS,
) -> Verified:
    """Run steps by the best predicted plans and on each processor alone, as :func:`verify` does.

    Steps are those of trainers like ``trainer``, which trains nothing here.

    Raises:
        DeviceMemoryError: a processor has not the memory for all of them at once.
        NonFiniteLoss: steps on one batch, again and again, led to a loss that is none.
    """

    def follow(plan: Plan) -> Followed:
        own = trainer.with_plan(plan)
        return Followed(lambda trace: own.step(feeds, labels, trace))

    calm = Calm(PATIENCE * seconds)
    return _verified(planning, follow, _Clock(trainer.processors, seconds, calm, LEAST_STEPS))


@dataclass(frozen=True)
class _Clock:
    """How plans are timed: as :func:`timed` says."""

    processors: Mapping[str, Processor]
    seconds: float
    calm: Calm
    least_rounds: int = LEAST_ROUNDS

    def first(self, actions: Actions) -> Samples:
        """A few turns only; of short runs more, as what disturbs them is as long as ever."""
        return self._timed(actions, min(FIRST_SECONDS, self.seconds), FIRST_ROUNDS)

    def some(self, actions: Actions) -> Samples:
        """Turns enough to go on from one of the plans."""
        return self._timed(actions, min(FIRST_SECONDS, self.seconds), MORE_ROUNDS)

    def all(self, actions: Actions) -> Samples:
        """Turns enough to choose by."""
        return self._timed(actions, self.seconds, self.least_rounds)

    def _timed(self, actions: Actions, seconds: float, least_rounds: int) -> Samples:
        return timed(actions, self.processors, seconds, least_rounds, self.calm)


def _verified(planning: Planning, follow: Callable[[Plan], Followed], clock: _Clock) -> Verified:
    """The choice among the candidates, by what following their plans is measured to take."""
    alone = _each_alone(planning)
    traced = {name: follow(planning.plan_of(each)).run for name, each in alone.items()}
    actions: dict[str, Callable[[], object]] = {n: partial(run, None) for n, run in traced.items()}
    computes: dict[str, float | None] = {}
    predicted = {name: each.makespan_us for name, each in alone.items()}
    problem = planning.whole.problem
    first = planning
    if alone and len(problem.units) > 1 and team(planning.costs, problem):
        # As of calls, of which the fastest measurements count: what disturbs makes them slower.
        found = {name: quiet(times) for name, times in clock.first(actions).items()}
        computes = {n.removeprefix(ONLY): _computing(run) for n, run in traced.items()}
        runs = {name: Run(found[f"{ONLY}{name}"], share) for name, share in computes.items()}
        planning = after_runs(_undisturbed(planning, runs), runs)
    outcomes = candidates(planning)
    as_first = _as_first_planned(planning, first, outcomes)
    tried = {**outcomes, **as_first}
    for name, each in tried.items():
        predicted.setdefault(name, each.makespan_us)
    plans = {name: follow(planning.plan_of(tried[name])) for name in tried if name not in actions}
    actions.update((name, partial(each.run, None)) for name, each in plans.items())
    better = _balanced(planning, tried, plans, follow, clock)
    if better is not None:
        tried[better.outcome.policy] = better.outcome
        predicted[better.outcome.policy] = better.outcome.makespan_us
        actions[better.outcome.policy] = partial(better.followed.run, None)
    samples = decided(clock.all, actions)
    if clock.calm.disturbed:
        log.warning(
            "other processes computed while plans were run: the best beside them was chosen, and "
            "nothing of it is kept; plan again when they have ended"
        )
    else:
        _learn(planning, {**outcomes, **_by_runs(planning, as_first)}, samples, computes)
    name = choose(samples)
    return Verified(name, planning.choosing(tried[name]), medians(samples), predicted)


def _balanced(
    planning: Planning,
    tried: Mapping[str, Outcome],
    plans: Mapping[str, Followed],
    follow: Callable[[Plan], Followed],
    clock: _Clock,
) -> Tried | None:
    """A plan with operators in shares that is faster than those of ``plans``, if one is found.

    It begins with the one of them that was predicted best, or with one by calls alone: what runs of
    everything on one processor say of calls may not be so of shares. Simulated processors take what
    was predicted of shares.
    """
    name = next((n for n in plans if tried[n].way == DIVIDED), None)
    real = team(planning.costs, planning.whole.problem)
    if name is None or not real or planning.ground.states.state:
        return None

    def fastest(contenders: Sequence[Tried]) -> Tried:
        actions = {str(i): partial(each.followed.run, None) for i, each in enumerate(contenders)}
        found = medians(clock.some(actions))
        return contenders[int(min(found, key=lambda number: found[number]))]

    given = Tried(planning.whole, tried[name], planning.plan_of(tried[name]), plans[name])
    starts = [given, *_by_calls(planning, given, follow)]
    best = balanced(starts, follow, fastest)
    return None if best is given else best


def _by_calls(planning: Planning, given: Tried, follow: Callable[[Plan], Followed]) -> list[Tried]:
    """Plans with operators in shares by the times of calls, other ones than is ``given``."""
    found = [given]
    for known, outcome in starts_by_calls(planning.ground.known.slowed(planning.how.factors)):
        plan = known.plan(outcome)
        if not any(alike(plan, each.plan) for each in found):
            found.append(Tried(known, outcome, plan, follow(plan)))
    return found[1:]


def _as_first_planned(
    planning: Planning, before: Planning, outcomes: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """The best plan on several processors ``before`` runs, where ``planning`` has few of its own.

    Runs that were disturbed lead to shares that nobody would have planned. A training has plans
    enough: the batch in shares, too.
    """
    several = [each for each in outcomes.values() if each.way in WAYS]
    ranked = (before.ranking.chosen, *before.ranking.outcomes)
    best = next((each for each in ranked if each.way in WAYS), None)
    if best is None or len(several) >= PLANS or planning.ground.states.state:
        return {}
    found = _different(planning, [*several, best])[len(several) :]
    return {f"{each.policy}{FIRST}": each for each in found}


def _by_runs(planning: Planning, firsts: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Plans that were made before each processor ran alone, predicted as ``planning`` is."""
    problem = planning.whole.problem
    return {name: outcome_of(problem, each.policy, each.schedule) for name, each in firsts.items()}


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
    learn_ways(members, ground.program, outcomes, samples)
    for each in members:
        each.store.save()


def timed(
    actions: Actions,
    processors: Mapping[str, Processor],
    seconds: float = SECONDS,
    least_rounds: int = LEAST_ROUNDS,
    calm: Calm | None = None,
) -> dict[str, list[float]]:
    """Microseconds of turns of each action by the clock of the processors that it runs on.

    In virtual time others disturb nothing.
    """
    timeline = timeline_of(next(iter(processors.values())))
    if timeline is None:
        return turns(actions, seconds, least_rounds=least_rounds, calm=calm)
    return turns(actions, 0.0, lambda: timeline.now_ns() * 1e-9, VIRTUAL_ROUNDS)


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
