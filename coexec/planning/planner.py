"""Planning: which processor executes which node of a model here, by measured costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from coexec.autodiff.step import StepGraph
from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.budget.placing import JOINT, Tried, placed_within
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array, OpCall
from coexec.cost.measuring import measure, measure_doubted
from coexec.cost.model import Observer, ProcessorCosts
from coexec.cost.predicted import PredictedCosts
from coexec.cost.whole import INFERENCE, STEP, Program
from coexec.inputs import check_feeds
from coexec.ops.node import call_of
from coexec.passes.order_for_memory import order_for_memory
from coexec.passes.rematerialise import rematerialise
from coexec.passes.updates import replace_after_readers
from coexec.placement.build_problem import NO_STATES, Planned, States, build_problem
from coexec.placement.divisions import Points
from coexec.placement.fused import fused_calls
from coexec.placement.policies.exact import SECONDS
from coexec.placement.policies.table import (
    ALL,
    AUTO,
    BATCH_PARALLEL,
    NAMES,
    WORTH,
    Outcome,
    Ranking,
    rank,
)
from coexec.placement.timeline import makespan_deciles
from coexec.planning.batch import Batches, BatchPlanning, Measure, NoDivision, Steps, plan_batch
from coexec.planning.corrections import NONE, Corrections, Run, alone_corrections, known_corrections
from coexec.planning.exchanges import measure_exchanges
from coexec.planning.shares import agree, calls_at, merged, own_calls, points_of, shares_of
from coexec.planning.static_model import static_model
from coexec.processor_costs import processor_costs
from coexec.session import legalise
from coexec.training.trainer import Trainer

MEASURING_SECONDS = 30.0
AXES = 3
"""Nodes may be divided along so many first axes: batch, channels or rows, columns or rows."""
DIVIDING = ("operator_split", ALL)
"""Policies for which shares are measured, as for ``auto`` in inference; others take the whole's."""
SHARPENINGS = 3
"""How often shares that the best plan takes are measured, to plan again."""


@dataclass(frozen=True)
class PlanOptions:
    """How to plan. ``policy`` is a name, or ``all``; ``last_resort`` takes what all others refuse.

    ``seconds`` is the time for measuring what is not known yet (0: only fits and rooflines).
    ``factors`` are how many times longer than known each processor takes now (1 without an entry).
    Of policies, only that of a plan to be ``like`` and ``single_best`` are ranked, if one is given.
    """

    policy: str = AUTO
    seconds: float = MEASURING_SECONDS
    exact_seconds: float = SECONDS
    refresh: bool = False
    last_resort: str = ""
    like: Plan | None = None
    observe: Observer = lambda _seconds, _text: None
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def only(self) -> str:
        """The policy of a plan to be like."""
        return "" if self.like is None else self.like.policy


@dataclass(frozen=True)
class Ground:
    """What plans of a graph stand on, however much longer than known its processors take now.

    ``known`` is the problem by times of calls, ``corrections`` what runs of the whole say of them.
    ``batches`` has the graph with its batch in shares, as far as that was asked for. ``divides``:
    whether it may be. ``points`` are shares of operators that were measured for a plan.
    """

    model: ir.Model
    costs: Mapping[str, ProcessorCosts]
    states: States
    known: Planned
    divides: bool
    batches: Batches = field(default_factory=dict)
    corrections: Corrections = NONE
    points: Points = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """What is run."""
        return Program(self.known.calls, STEP if self.states.state else INFERENCE)


@dataclass(frozen=True)
class Planning:
    """A plan and all that led to it; ``model`` is the graph that it places.

    ``placed`` says where each task of ``planned`` runs: that is ``plan``, unless the plan divides
    the batch; then tasks are those of the divided graph. ``whole`` is the problem without that,
    and ``divided`` the division that was found, if one was, whatever is chosen. ``ground`` is what
    :func:`plan_again` starts from, and ``how`` the way it was planned. Within a budget of memory,
    ``tried`` are the forms of plans that were searched.

    ``deciles_us`` are the first and last decile of the makespan, by the spread of the measured
    times.
    """

    model: ir.Model
    plan: Plan
    placed: Plan
    planned: Planned
    ranking: Ranking
    costs: Mapping[str, ProcessorCosts]
    deciles_us: tuple[float, float]
    whole: Planned
    divided: BatchPlanning | None
    ground: Ground
    how: PlanOptions
    tried: tuple[Tried, ...] = ()

    def plan_of(self, outcome: Outcome) -> Plan:
        """An outcome of the ranking, or another one of ``whole``, as a plan."""
        return _taken(outcome, self.whole, self.divided)[0]

    def choosing(self, outcome: Outcome) -> Planning:
        """The same with another outcome as its choice: one that :meth:`plan_of` takes."""
        plan, placed, planned = _taken(outcome, self.whole, self.divided)
        return replace(
            self,
            plan=plan,
            placed=placed,
            planned=planned,
            ranking=replace(self.ranking, chosen=outcome),
            deciles_us=_deciles(outcome),
        )


def plan_inference(
    model: ir.Model,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    how: PlanOptions = PlanOptions(),
) -> Planning:
    """Plan runs of ``model`` on inputs like ``feeds`` (values count where they decide shapes)."""
    return plan_static(static_model(model, feeds), processors, how)


def plan_static(
    model: ir.Model, processors: Mapping[str, Processor], how: PlanOptions = PlanOptions()
) -> Planning:
    """Plan runs of a :func:`static_model`, which is rewritten for these processors."""
    return _plan(legalise(model, processors, fold_parameters=True), processors, NO_STATES, how)


def plan_training(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    how: PlanOptions = PlanOptions(),
    processors: Mapping[str, Processor] | None = None,
) -> Planning:
    """Plan training steps on batches like ``feeds``; nothing is compiled or trained.

    They run on the trainer's processors, or on others. On several, they keep the trainer's budget
    of memory (:mod:`coexec.budget.placing`); on one, other techniques do that, and there is nothing
    to place.

    Raises:
        MemoryBudgetError: no plan was found that does.
    """
    there = processors or trainer.processors
    within = trainer.memory.steps is not None and len(there.keys() - {how.last_resort}) > 1
    costs = processor_costs(there) if within else None  # what executes a call is looked up once

    def planned(
        recompute: tuple[str, ...], how: PlanOptions, *, divides: bool, early: bool = False
    ) -> Planning:
        step: StepGraph = replace(trainer.build_step(feeds), early=early)
        states = States(step.state, frozenset(step.initial), step.gate)
        model = legalise(step.model, there)
        if within:
            order_for_memory(model.graph, step.state, early=early)
        rematerialise(model.graph, recompute)
        if recompute:
            replace_after_readers(model.graph, step.state)
        return _plan(model, there, states, how, divides=divides, costs=costs)

    if not within or trainer.memory.steps is None:
        return planned((), how, divides=True)
    seconds, policy = how.seconds, AUTO if how.policy == JOINT else how.policy

    def place(again: tuple[str, ...], divides: bool, early: bool, like: Plan | None) -> Planning:
        nonlocal seconds
        # What is not known yet is measured once.
        now, seconds = replace(how, seconds=seconds, policy=policy, like=like), 0.0
        return planned(again, now, divides=divides, early=early)

    arrays = check_feeds(trainer.model, feeds)
    found = placed_within(trainer.memory.steps, arrays, place, how.policy)
    return replace(found.placing, plan=found.plan, tried=found.tried)


def _plan(
    model: ir.Model,
    processors: Mapping[str, Processor],
    states: States,
    how: PlanOptions,
    *,
    divides: bool = True,
    costs: Mapping[str, ProcessorCosts] | None = None,
) -> Planning:
    began = time.perf_counter()
    if how.policy == JOINT:
        raise UsageError(
            f"policy {JOINT} decides what to recompute: it needs a budget, --memory 512MiB"
        )
    if how.policy not in (names := (*NAMES, ALL)):
        raise UsageError(f"policy {how.policy!r} is unknown; {known_names(how.policy, names)}")
    how.observe(0.0, "limits of the processors")
    costs = costs or processor_costs(processors, lambda name: how.observe(0, f"limits of {name}"))
    named = [each for name, each in costs.items() if name != how.last_resort]
    measurable = [each for each in named if not isinstance(each, PredictedCosts)]
    calls = [call_of(node) for node in model.graph]
    divide = bool(measurable) and len(named) > 1 and _divides_operators(how, states)
    shares = [share for call in calls for share in shares_of(call, AXES)] if divide else []
    # Calls on shares of a batch are known when the batch is divided: they get the other half.
    first = how.seconds / 2 if _divides_batch(how, states) else how.seconds
    fused = fused_calls(model.graph, costs)
    if measurable:
        measure_exchanges(processors, measurable, first, how.observe, how.refresh)
        own = own_calls(calls, fused, costs, AXES if divide else 0)
        measure([*calls, *shares], measurable, first, how.observe, how.refresh, own=own)
        measure_exchanges(processors, measurable, first, how.observe)
    how.observe(how.seconds, f"planning {len(calls)} nodes")

    def left() -> float:
        return how.seconds - (time.perf_counter() - began)

    def measure_shares(shares: Sequence[OpCall]) -> None:
        if measurable and left() > 0:
            measure(shares, measurable, left(), how.observe, how.refresh)

    axes = AXES if len(named) > 1 else 0
    timed = build_problem(model.graph, costs, states, how.last_resort, axes, fused=fused)
    ground = Ground(model, costs, states, timed, divides)
    corrections = known_corrections(ground.program, costs, timed.problem)
    planning = _choose(replace(ground, corrections=corrections), how, measure_shares)
    return _sharpened(planning, measurable, left, measure_shares) if divide else planning


def _sharpened(
    planning: Planning,
    measurable: Sequence[ProcessorCosts],
    left: Callable[[], float],
    measure_shares: Measure,
) -> Planning:
    """Plan again by what the shares take that the best plan takes, while there is time ``left``."""
    how = planning.how
    for _ in range(SHARPENINGS):
        ground = planning.ground
        points = merged(ground.points, points_of(ground.known, planning.ranking.outcomes))
        if points == ground.points or left() <= 0:
            break
        shares, own = calls_at(ground.known, points, AXES, ground.costs)
        measure(shares, measurable, left(), how.observe, beside=False, own=own)
        sharper = replace(ground, points=points, known=_known(ground, how, points))
        if agree(ground.known.problem, sharper.known.problem, points):
            break
        planning = _choose(sharper, how, measure_shares)
    return planning


def plan_again(ground: Ground, how: PlanOptions) -> Planning:
    """Plan the same for processors that take ``how.factors`` times as long as known.

    Nothing is built or measured: of divisions of the batch that are new the times are estimated.
    """
    return _choose(ground, how, None)


def measured_again(planning: Planning, names: Sequence[str], seconds: float) -> Planning:
    """Plan an inference again if calls take less, measured for ``seconds`` on each processor."""
    ground, calls_on = planning.ground, planning.ground.known.calls_on
    if not sum(measure_doubted(calls_on(each), ground.costs[each], seconds) for each in names):
        return planning
    known = _known(ground, planning.how, ground.points)
    return plan_again(replace(ground, known=known), planning.how)


def _known(ground: Ground, how: PlanOptions, points: Points) -> Planned:
    """The problem by what is known now, of shares at ``points``, too."""
    axes = AXES if len(ground.costs.keys() - {how.last_resort}) > 1 else 0
    graph, costs, states = ground.model.graph, ground.costs, ground.states
    return build_problem(graph, costs, states, how.last_resort, axes, points, ground.known.fused)


def after_runs(planning: Planning, runs: Mapping[str, Run]) -> Planning:
    """Plan again by runs of all on one processor, by its name."""
    ground = planning.ground
    found = {**ground.corrections.alone, **alone_corrections(ground.known.problem, runs)}
    corrections = replace(ground.corrections, alone=found)
    return plan_again(replace(ground, corrections=corrections), planning.how)


def _choose(ground: Ground, how: PlanOptions, measure_shares: Measure | None) -> Planning:
    whole = ground.corrections.of(ground.known).slowed(how.factors)
    ranking = rank(whole.problem, how.policy, how.exact_seconds, how.only)
    if ground.divides:
        ranking, divided = _with_batch(ground, whole, ranking, how, measure_shares)
    else:
        ranking, divided = _left_out(ranking, "a budget of memory is kept for whole batches"), None
    plan, placed, planned = _taken(ranking.chosen, whole, divided)
    return Planning(
        model=ground.model,
        plan=plan,
        placed=placed,
        planned=planned,
        ranking=ranking,
        costs=ground.costs,
        deciles_us=_deciles(ranking.chosen),
        whole=whole,
        divided=divided,
        ground=ground,
        how=how,
    )


def _deciles(outcome: Outcome) -> tuple[float, float]:
    """Of its makespan, corrected as that is."""
    low, high = makespan_deciles(outcome.plain.problem, outcome.plain.schedule)
    return low * outcome.correction, high * outcome.correction


def _taken(
    outcome: Outcome, whole: Planned, divided: BatchPlanning | None
) -> tuple[Plan, Plan, Planned]:
    """The plan of an outcome, where its tasks run then, and the problem that it is one of."""
    if divided is not None and outcome is divided.outcome:
        return divided.plan, divided.placed, divided.planned
    plan = whole.plan(outcome)
    return plan, plan, whole


def _with_batch(
    ground: Ground,
    whole: Planned,
    ranking: Ranking,
    how: PlanOptions,
    measure_shares: Measure | None,
) -> tuple[Ranking, BatchPlanning | None]:
    """The ranking with a division of the batch in it, if there is one."""
    if not _divides_batch(how, ground.states):
        trains = bool(ground.states.state)
        reason = f"ask for --policy {BATCH_PARALLEL}" + (f" or {AUTO}" if trains else "")
        return _left_out(ranking, reason), None
    team = {name: each for name, each in ground.costs.items() if name != how.last_resort}
    steps = Steps(ground.model, team, ground.states, ground.batches, how.like)
    try:
        found = plan_batch(
            steps,
            whole,
            measure_shares,
            lambda known: ground.corrections.of(known).slowed(how.factors),
        )
    except NoDivision as reason:
        if how.policy == BATCH_PARALLEL:
            raise UsageError(f"policy {BATCH_PARALLEL}: {reason}") from reason
        return _left_out(ranking, str(reason)), None
    gain = found.outcome.makespan_us < (1 - WORTH) * ranking.chosen.makespan_us
    chosen = found.outcome if gain or how.policy == BATCH_PARALLEL else ranking.chosen
    outcomes = sorted((*ranking.outcomes, found.outcome), key=lambda each: each.makespan_us)
    return Ranking(chosen, tuple(outcomes), ranking.left_out), found


def _divides_operators(how: PlanOptions, states: States) -> bool:
    """Of training, ``auto`` knows the time of shares of a batch instead."""
    return how.policy in DIVIDING or (how.policy == AUTO and not states.state)


def _divides_batch(how: PlanOptions, states: States) -> bool:
    """In inference batches are mostly of one sample: a division is tried if it is asked for."""
    asked = bool(states.state) and how.only in ("", BATCH_PARALLEL)
    return how.policy == BATCH_PARALLEL or (asked and how.policy in (AUTO, ALL))


def _left_out(ranking: Ranking, reason: str) -> Ranking:
    return replace(ranking, left_out={**ranking.left_out, BATCH_PARALLEL: reason})
