"""Planning: which processor executes which node of a model here, by measured costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import onnx_ir as ir

from coexec.autodiff.step import StepGraph
from coexec.base.errors import UsageError
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array, OpCall
from coexec.cost.model import Observer, ProcessorCosts, measure
from coexec.cost.store import CostStore
from coexec.frontend.specialise import ValuesNeeded, specialise
from coexec.ops.node import call_of
from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.placement.build_problem import NO_STATES, Planned, States, build_problem
from coexec.placement.divisions import shares_to_measure
from coexec.placement.policies.exact import SECONDS
from coexec.placement.policies.table import ALL, AUTO, NAMES, Ranking, rank
from coexec.placement.timeline import makespan_deciles
from coexec.rates import machine_rates
from coexec.session import legalise
from coexec.trainer import Trainer

MEASURING_SECONDS = 30.0
AXES = 3
"""Nodes may be divided along so many first axes: batch, channels or rows, columns or rows."""
DIVIDING = ("operator_split", ALL)
"""Policies for which shares are measured; others take them from the whole."""
HEAVY = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators whose shares are measured."""


@dataclass(frozen=True)
class PlanOptions:
    """How to plan. ``policy`` is a name, or ``all``; ``last_resort`` takes what all others refuse.

    ``seconds`` is the time for measuring what is not known yet (0: only fits and rooflines).
    """

    policy: str = AUTO
    seconds: float = MEASURING_SECONDS
    exact_seconds: float = SECONDS
    refresh: bool = False
    last_resort: str = ""
    observe: Observer = lambda _seconds, _text: None


@dataclass(frozen=True)
class Planning:
    """A plan and all that led to it; ``model`` is the graph that it places.

    ``deciles_us`` are the first and last decile of the makespan, by the spread of the measured
    times.
    """

    model: ir.Model
    plan: Plan
    planned: Planned
    ranking: Ranking
    costs: Mapping[str, ProcessorCosts]
    deciles_us: tuple[float, float]


def plan_inference(
    model: ir.Model,
    feeds: Mapping[str, Array],
    processors: Mapping[str, Processor],
    how: PlanOptions = PlanOptions(),
) -> Planning:
    """Plan runs of ``model`` on inputs like ``feeds`` (values count where they decide shapes)."""
    static = _specialised(model, feeds)
    fold_batch_norm(static)
    return _plan(legalise(static, processors), processors, NO_STATES, how)


def _specialised(model: ir.Model, feeds: Mapping[str, Array]) -> ir.Model:
    shapes = {name: array.shape for name, array in feeds.items()}
    values: dict[str, Array] = {}
    while True:
        try:
            return specialise(model, shapes, values, fold_parameters=True)
        except ValuesNeeded as needed:
            new = {name: feeds[name] for name in needed.names if name not in values}
            if not new:
                raise
            values |= new


def plan_training(
    trainer: Trainer, feeds: Mapping[str, Array], how: PlanOptions = PlanOptions()
) -> Planning:
    """Plan training steps on batches like ``feeds``; nothing is compiled or trained."""
    step: StepGraph = trainer.build_step(feeds)
    states = States(step.state, frozenset(step.initial), step.watched)
    model = legalise(step.model, trainer.processors)
    return _plan(model, trainer.processors, states, how)


def _plan(
    model: ir.Model, processors: Mapping[str, Processor], states: States, how: PlanOptions
) -> Planning:
    if how.policy not in (*NAMES, ALL):
        known = ", ".join((*NAMES, ALL))
        raise UsageError(f"policy {how.policy!r} is unknown; known: {known}")
    how.observe(0.0, "limits of the processors")
    costs = processor_costs(processors, lambda name: how.observe(0.0, f"limits of {name}"))
    named = [each for name, each in costs.items() if name != how.last_resort]
    calls = [call_of(node) for node in model.graph]
    divide = how.policy in DIVIDING and len(named) > 1
    shares = [share for call in calls for share in _shares(call)] if divide else []
    measure([*calls, *shares], named, how.seconds, how.observe, how.refresh)
    axes = AXES if len(named) > 1 else 0
    planned = build_problem(model.graph, costs, states, how.last_resort, axes)
    how.observe(how.seconds, f"planning {len(calls)} nodes")
    ranking = rank(planned.problem, how.policy, how.exact_seconds)
    chosen = ranking.chosen
    return Planning(
        model=model,
        plan=planned.plan(chosen),
        planned=planned,
        ranking=ranking,
        costs=costs,
        deciles_us=makespan_deciles(chosen.plain.problem, chosen.plain.schedule),
    )


def _shares(call: OpCall) -> Iterator[OpCall]:
    """Shares to measure of a call that computes much; of constants, the parts lie side by side."""
    if call.op_type in HEAVY:
        for share in shares_to_measure(call, AXES):
            constants = {i: np.ascontiguousarray(a) for i, a in share.constants.items()}
            yield replace(share, constants=constants)


def processor_costs(
    processors: Mapping[str, Processor], observe: Callable[[str], None] = lambda _name: None
) -> dict[str, ProcessorCosts]:
    """What is known of each processor: limits (measured now if they never were) and past times."""
    rates = machine_rates(list(processors), observe=observe).processors
    coexec_version = f"{version('coexec')} NumPy {np.__version__}"
    return {
        name: ProcessorCosts(
            processor, rates[name], CostStore(processor.describe(), coexec_version)
        )
        for name, processor in processors.items()
    }


def share_of_sources(planning: Planning) -> dict[str, int]:
    """Nodes of the plan by where their predicted time is from."""
    units = [unit.name for unit in planning.planned.problem.units]
    counts: dict[str, int] = {}
    for task, row in zip(planning.planned.problem.tasks, planning.planned.costs, strict=True):
        cost = row[units.index(planning.plan.processors[task.name])]
        assert cost is not None
        counts[cost.source] = counts.get(cost.source, 0) + 1
    return counts
