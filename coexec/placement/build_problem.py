"""From a graph, processors and their costs to a planning problem."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from coexec.base.cores import cores_of, resources_of
from coexec.base.errors import ProcessorError
from coexec.core.here import here_of
from coexec.core.plan import Plan, Refusal, Split
from coexec.core.types import OpCall
from coexec.cost.model import Cost, ProcessorCosts
from coexec.cost.silicon import occupied
from coexec.cost.whole import Correction
from coexec.ops.builder import PHASE
from coexec.ops.dequantised import integers_of, is_repeated
from coexec.ops.node import call_of, constant_of, type_of
from coexec.ops.table import opdef
from coexec.placement.able import with_refusals
from coexec.placement.divisions import NO_POINTS, Points, divisions
from coexec.placement.fused import Fused, calls_made, fused_calls, whole_cost
from coexec.placement.policies.table import Outcome
from coexec.placement.problem import Division, Matrix, Problem, Shares, Task, Tensor, Unit


@dataclass(frozen=True)
class States:
    """What lives on devices between runs: see :class:`coexec.runtime.lower.Lowering`.

    Nodes of phase ``gated_phase`` wait for the tensors ``gate``.
    """

    state: Mapping[str, str] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()
    gate: tuple[str, ...] = ()
    gated_phase: str = "optimizer"


NO_STATES = States()


@dataclass(frozen=True)
class Planned:
    """A problem with what it was made of: calls, refusals, and the cost of each task by unit.

    ``costs[t][p]`` is ``None`` where processor p refuses task t, ``fused`` what is made of nodes.
    """

    problem: Problem
    calls: tuple[OpCall, ...]
    refusals: tuple[Refusal, ...]
    costs: tuple[tuple[Cost | None, ...], ...]
    fused: Fused = field(default_factory=dict)

    def calls_on(self, name: str) -> Sequence[OpCall]:
        """What a processor makes of the calls if all of them run there."""
        return calls_made(self.calls, self.fused).get(name, self.calls)

    def slowed(self, factors: Mapping[str, float]) -> Planned:
        """The same with tasks that take so many times longer, by processor."""
        if not factors:
            return self
        by_unit = [factors.get(unit.name, 1.0) for unit in self.problem.units]
        divided = {
            task: tuple(_slowed(division, by_unit) for division in divisions)
            for task, divisions in self.problem.divisions.items()
        }
        times = self.problem.time_us * np.array(by_unit)
        return replace(self, problem=replace(self.problem, time_us=times, divisions=divided))

    def corrected(self, alone: Mapping[str, Correction], ways: Mapping[str, float]) -> Planned:
        """The same with other times of tasks, by processor, and makespans of ``ways``."""
        none = Correction(1.0)
        by_unit = [alone.get(unit.name, none) for unit in self.problem.units]
        slowed = self.slowed({name: each.factor for name, each in alone.items()})
        more = [each.each_us for each in by_unit]
        times = slowed.problem.time_us
        divided = {
            task: tuple(_lengthened(division, more) for division in divisions)
            for task, divisions in slowed.problem.divisions.items()
        }
        problem = replace(
            slowed.problem,
            time_us=times + np.where(times > 0, more, 0.0),
            divisions=divided,
            corrections=ways,
        )
        return replace(self, problem=problem)

    def plan(self, outcome: Outcome) -> Plan:
        """An outcome as a plan by names; of the refusals all."""
        tasks, units = self.problem.tasks, self.problem.units
        placed = outcome.schedule.units
        return Plan(
            processors={task.name: units[placed[i]].name for i, task in enumerate(tasks)},
            refusals=self.refusals,
            order=tuple(tasks[index].name for index in outcome.schedule.order),
            policy=outcome.policy,
            predicted_us=outcome.makespan_us,
            splits={tasks[i].name: self._split(i, s) for i, s in outcome.schedule.shares.items()},
        )

    def sources(self, placed: Plan) -> dict[str, int]:
        """Tasks of a plan by where their predicted times are from."""
        units = [unit.name for unit in self.problem.units]
        counts: dict[str, int] = {}
        for task, row in zip(self.problem.tasks, self.costs, strict=True):
            cost = row[units.index(placed.processors[task.name])]
            assert cost is not None
            counts[cost.source] = counts.get(cost.source, 0) + 1
        return counts

    def _split(self, task: int, shares: Shares) -> Split:
        division = self.problem.divisions[task][shares.division]
        names = [unit.name for unit in self.problem.units]
        sizes = {names[unit]: count * division.quantum for unit, count in shares.units}
        before, behind = (units * division.quantum for units in shares.overlap)
        return Split(division.axis, sizes, (before, behind))


def _slowed(division: Division, factors: Sequence[float]) -> Division:
    curves = tuple(
        tuple((share, time * factor) for share, time in curve)
        for curve, factor in zip(division.curves, factors, strict=True)
    )
    return replace(division, curves=curves)


def _lengthened(division: Division, more_us: Sequence[float]) -> Division:
    curves = tuple(
        tuple((share, time + more if time else time) for share, time in curve)
        for curve, more in zip(division.curves, more_us, strict=True)
    )
    return replace(division, curves=curves)


def build_problem(
    graph: ir.Graph,
    costs: Mapping[str, ProcessorCosts],
    states: States = NO_STATES,
    last_resort: str = "",
    axes: int = 0,
    points: Points = NO_POINTS,
    fused: Fused | None = None,
) -> Planned:
    """The problem of placing ``graph`` (static types, scheduled) on the processors of ``costs``.

    ``last_resort`` names a processor that takes only what all others refuse. Nodes may be divided
    along the first ``axes`` axes of their results; ``points`` are shares that may be measured.
    ``fused`` is what processors make of nodes, asked here if nobody did yet.

    Raises:
        ProcessorError: a node that no processor supports.
    """
    calls = tuple(call_of(node) for node in graph)
    refusals: list[Refusal] = []
    fused = fused_calls(graph, costs) if fused is None else fused
    rows = tuple(
        _row(call, costs, last_resort, refusals, fused, begins_kernel(node))
        for node, call in zip(graph, calls, strict=True)
    )
    used = [i for i, name in enumerate(costs) if name != last_resort or any(row[i] for row in rows)]
    names = [list(costs)[i] for i in used]
    rows = tuple(tuple(row[i] for i in used) for row in rows)
    tasks, tensors = _tasks_and_tensors(graph, calls, states)
    latency, us_per_byte, latency_sigma = _links([costs[name] for name in names])
    divided = divisions(
        list(graph), calls, tasks, tensors, rows, [costs[n] for n in names], axes, points, fused
    )
    problem = Problem(
        units=_units([costs[name] for name in names]),
        tasks=tasks,
        tensors=with_refusals(graph, tasks, tensors, divided, [costs[n].processor for n in names]),
        time_us=_table(rows, len(names), lambda cost: cost.time.median_us, np.inf),
        latency_us=latency,
        us_per_byte=us_per_byte,
        slowdown=_slowdowns([costs[name] for name in names], calls),
        time_sigma=_table(rows, len(names), lambda cost: cost.time.sigma, 0.0),
        latency_sigma=latency_sigma,
        divisions=divided,
        exchange_us=_exchanges([costs[name] for name in names]),
        host_shares=_all_cores_taken([costs[name] for name in names]),
        host_first=_waits_on_first([costs[name] for name in names]),
        caller=_caller({i: costs[name] for i, name in enumerate(names) if name != last_resort}),
    )
    return Planned(problem, calls, tuple(refusals), rows, fused)


def _row(
    call: OpCall,
    costs: Mapping[str, ProcessorCosts],
    last_resort: str,
    refusals: list[Refusal],
    fused: Fused,
    begins: bool,
) -> tuple[Cost | None, ...]:
    """Cost by processor; refusals are noted. ``begins``: in no kernel of another node."""
    row: list[Cost | None] = []
    reasons = []
    for name, each in costs.items():
        support = each.processor.supports(call)
        if not support.yes:
            reasons.append(Refusal(call.name, call.identifier, name, support.reason))
        needed = name != last_resort or not any(row)
        own = fused.get(name, {})
        if not support.yes or not needed:
            row.append(None)
        elif call.name in own:
            row.append(whole_cost(call, each, own))
        else:
            row.append(each.cost_alone(call) if begins else each.cost(call))
    if not any(row):
        text = "; ".join(f"{refusal.processor}: {refusal.reason}" for refusal in reasons)
        raise ProcessorError(f"no processor executes {call.identifier} {call.name!r}: {text}")
    refusals += reasons
    return tuple(row)


def begins_kernel(node: ir.Node) -> bool:
    """Whether no kernel before it can compute a node on its way out, whatever its operator.

    For that its largest operand has to be made for it alone, by what is no view.
    """
    operands = [value for value in node.inputs if value is not None]
    if not operands:
        return True
    largest = max(operands, key=lambda value: type_of(value).nbytes)
    producer = largest.producer()
    if producer is None or largest.is_graph_output():
        return True
    return len(largest.uses()) > 1 or opdef(call_of(producer)).view


def _table(
    rows: Sequence[Sequence[Cost | None]],
    width: int,
    number: Callable[[Cost], float],
    absent: float,
) -> Matrix:
    table = [[absent if cost is None else number(cost) for cost in row] for row in rows]
    return np.array(table, float).reshape(len(rows), width)


def _units(costs: Sequence[ProcessorCosts]) -> tuple[Unit, ...]:
    described = [each.processor.describe() for each in costs]
    everything = [name for each in described for name in each.resources]
    return tuple(
        Unit(
            spec.name,
            occupied(spec.resources, everything),
            each.rates.launch_us,
            1 / (each.rates.bandwidth_gbps * 1e3),
            each.restart_us,
            *each.copies,
        )
        for spec, each in zip(described, costs, strict=True)
    )


def _slowdowns(costs: Sequence[ProcessorCosts], calls: Sequence[OpCall]) -> Matrix:
    """Factors between processors that can be busy at once; 1 between those that cannot."""
    factors = np.ones((len(costs), len(costs)))
    for p, victim in enumerate(costs):
        for q, other in enumerate(costs):
            if p != q and not victim.shares_silicon_with(other):
                factors[p, q] = victim.slowdown(other, calls)
    return factors


def _exchanges(costs: Sequence[ProcessorCosts]) -> Matrix | None:
    """The host's time for exchanges, 0 where it is not known; nothing if none is."""
    pairs = itertools.permutations(range(len(costs)), 2)
    known = {(p, q): us for p, q in pairs if (us := costs[p].exchange_us(costs[q])) is not None}
    if not known:
        return None
    table = np.zeros((len(costs), len(costs)))
    for place, us in known.items():
        table[place] = us
    return table


def _caller(costs: Mapping[int, ProcessorCosts]) -> int | None:
    """The processor whose work the thread does that hands over that of all others, if one's is."""
    if len(costs) < 2 or not all(each.processor.chained for each in costs.values()):
        return None
    return next((i for i, each in costs.items() if here_of(each.processor) is not None), None)


def _all_cores_taken(costs: Sequence[ProcessorCosts]) -> bool:
    """Whether the processors occupy all cores of this host, so that its thread runs on theirs."""
    everything = [name for each in costs for name in each.processor.describe().resources]
    return set(resources_of()) <= occupied(everything, resources_of())


def _waits_on_first(costs: Sequence[ProcessorCosts]) -> bool:
    """Whether the caller's thread is on the core of whoever comes first in a program.

    It is where processors occupy all cores of the host, each its own (:mod:`coexec.runtime.home`).
    """
    cores = [cores_of(each.processor.describe().resources) for each in costs]
    apart = all(cores) and len(set().union(*cores)) == sum(map(len, cores))
    return len(costs) > 1 and apart and _all_cores_taken(costs)


def _links(costs: Sequence[ProcessorCosts]) -> tuple[Matrix, Matrix, Matrix]:
    """Latency, time per byte and spread between all places, the host last."""
    count = len(costs)
    latency, us_per_byte, sigma = (np.zeros((count + 1, count + 1)) for _ in range(3))
    for p, source in enumerate(costs):
        link = source.link()
        entries = {(p, q): source.way(target) for q, target in enumerate(costs) if q != p}
        entries |= {(p, count): link.read, (count, p): link.write}
        for place, line in entries.items():
            latency[place] = line.latency.median_us
            us_per_byte[place] = line.us_per_byte
            sigma[place] = line.latency.sigma
    return latency, us_per_byte, sigma


def _tasks_and_tensors(
    graph: ir.Graph, calls: Sequence[OpCall], states: States
) -> tuple[tuple[Task, ...], tuple[Tensor, ...]]:
    nodes = list(graph)
    numbers: dict[str, int] = {}
    tensors: list[Tensor] = []
    fetched = {str(v.name) for v in graph.outputs} - set(states.state)
    homes = _homes(nodes, states)
    for value in graph.inputs:
        name = str(value.name)
        if constant_of(value) is None:
            numbers[name] = len(tensors)
            tensors.append(Tensor(name, type_of(value).nbytes, None, homes.get(name)))
    for index, node in enumerate(nodes):
        for value in node.outputs:
            if value.name:
                numbers[value.name] = len(tensors)
                nbytes = type_of(integers_of(node) if is_repeated(node) else value).nbytes
                wanted = value.name in fetched
                gate = wanted and value.name in states.gate
                tensors.append(Tensor(value.name, nbytes, index, fetched=wanted, gate=gate))
    tasks = tuple(
        _task(node, call, numbers, states) for node, call in zip(nodes, calls, strict=True)
    )
    return tasks, tuple(tensors)


def _task(node: ir.Node, call: OpCall, numbers: Mapping[str, int], states: States) -> Task:
    operands = [str(value.name) for value in node.inputs if value is not None]
    if node.metadata_props.get(PHASE) == states.gated_phase:
        operands += states.gate
    read = dict.fromkeys(numbers[name] for name in operands if name in numbers)
    made = [numbers[value.name] for value in node.outputs if value.name]
    return Task(call.name, call.identifier, tuple(read), tuple(made))


def _homes(nodes: Sequence[ir.Node], states: States) -> dict[str, int]:
    """The task where each state lives: its writer, else its first reader."""
    homes: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and value.name in states.inputs:
                homes.setdefault(str(value.name), index)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            old = states.state.get(str(value.name))
            if old is not None:
                homes[old] = index
    return homes
