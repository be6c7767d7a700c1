"""What to recompute, and where: decided together, on the timeline of a placed step.

A repetition may run on any processor that executes it, and costs what it makes the step longer: on
one that is idle, nothing. So what is chosen is not what is cheapest to compute, but what is
cheapest where there is time for it. Every choice is judged by the timeline of the whole step, and
by the bytes of all processors, which share one memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from coexec.budget.repetitions import Evaluation, Groups, PlacedStep, Repeated
from coexec.memory.choose import choose
from coexec.memory.problem import Choice, StepProblem
from coexec.placement.problem import Schedule
from coexec.placement.timeline import simulate

IDLE = 0.1
"""A processor that is idle for this share of the step may take repetitions for others."""
FREE = 0.05
"""Of its time there a repetition is reckoned to cost while there is room: what takes less of the
idle time is still better."""
ROUNDS = 3
"""Times that less memory is aimed at: repetitions elsewhere are there ahead of their readers."""
TRIED = 240
"""Timelines at most in which groups of repetitions change places."""


@dataclass(frozen=True)
class Joint:
    """What is recomputed, by name, and what that leads to; ``elsewhere`` groups are on others.

    ``shortest_peak`` are the bytes of the shortest step seen on the way, whether they fit or not.
    """

    recompute: tuple[str, ...]
    evaluation: Evaluation
    elsewhere: int
    shortest_peak: int

    @property
    def makespan_us(self) -> float:
        return self.evaluation.makespan_us

    @property
    def peak(self) -> int:
        return self.evaluation.peak


def decide(step: PlacedStep, budget: int) -> Joint | None:
    """The shortest step found whose tensors take ``budget`` bytes at most on all processors.

    None: nothing found does.
    """
    found = [each for memory in _priced(step) for each in _within(step, memory, budget)]
    return min(found, key=lambda each: (each.makespan_us, each.peak), default=None)


def _within(step: PlacedStep, memory: StepProblem, budget: int) -> Iterator[Joint]:
    """Choices by the prices of ``memory`` that fit, each with more room for the shortest step."""
    goal = budget
    for _ in range(ROUNDS):
        choice = choose(memory, goal)
        if choice.peak > goal:
            return
        found = placed(step, choice, budget)
        if found.peak <= budget:
            yield found
        if found.shortest_peak <= budget:
            return
        goal -= found.shortest_peak - budget


def _priced(step: PlacedStep) -> Iterator[StepProblem]:
    """The memory problem with times where nodes are; then with those on idle processors.

    All activations may wait as long as they do: only prices of repetitions differ.
    """
    times = step.problem.times
    home = [times[node][unit] for node, unit in enumerate(step.units)]
    yield _with_costs(step.memory, home)
    idle = _idle(step)
    if idle:
        elsewhere = [min(times[node][unit] for unit in idle) for node in range(len(home))]
        yield _with_costs(
            step.memory,
            [min(own, FREE * there) for own, there in zip(home, elsewhere, strict=True)],
        )


def _with_costs(memory: StepProblem, costs: list[float]) -> StepProblem:
    nodes = zip(memory.nodes, costs, strict=True)
    return replace(memory, nodes=tuple(replace(node, cost_us=cost) for node, cost in nodes))


def _idle(step: PlacedStep) -> list[int]:
    """Processors with time to spare in the plain step that do not share silicon with a busy one."""
    timeline = simulate(step.problem, Schedule(step.units, tuple(range(len(step.units)))))
    share = [busy / max(timeline.makespan_us, 1e-9) for busy in timeline.busy_us]
    busy = [unit for unit, part in enumerate(share) if part > 1 - IDLE]
    taken = {resource for unit in busy for resource in step.problem.resources[unit]}
    return [
        unit
        for unit, part in enumerate(share)
        if part <= 1 - IDLE and taken.isdisjoint(step.problem.resources[unit])
    ]


def placed(step: PlacedStep, choice: Choice, budget: int) -> Joint:
    """The repetitions of a choice where they make the step shortest within ``budget`` bytes.

    From both ends: all with their readers, and as many as possible elsewhere; then group by group.
    """
    search = _Search(Repeated(step, choice), budget)
    found = [search.improved(start) for start in _starts(search.repeated)]
    best, away = min(found, key=lambda each: search.key(each[0]))
    return Joint(choice.names(step.memory), best, len(away), search.shortest.peak)


def _starts(repeated: Repeated) -> Iterator[Groups]:
    yield {}
    groups = range(len(repeated.readers))
    for unit in range(len(repeated.step.problem.units)):
        away = {g: unit for g in groups if repeated.home(g) != unit and repeated.can_run(g, unit)}
        if away:
            yield away


class _Search:
    """Groups of repetitions change places; ``shortest`` is the shortest step seen."""

    def __init__(self, repeated: Repeated, budget: int) -> None:
        self.repeated = repeated
        self.budget = budget
        self.tried = 0
        self.shortest = self._evaluated({})

    def improved(self, away: Groups) -> tuple[Evaluation, Groups]:
        """One group after the other, as long as that shortens the step, or lets it fit."""
        best = self._evaluated(away)
        for group in range(len(self.repeated.readers)):
            for unit in range(len(self.repeated.step.problem.units)):
                moved = self._moved(away, group, unit)
                if moved is None or self.tried >= TRIED:
                    continue
                trial = self._evaluated(moved)
                if self.key(trial) < self.key(best):
                    best, away = trial, moved
        return best, away

    def key(self, found: Evaluation) -> tuple[float, float]:
        """What fits comes first, then the shortest; of what does not, the lowest."""
        excess = max(found.peak - self.budget, 0)
        return (float(excess), found.makespan_us if excess == 0 else inf)

    def _moved(self, away: Groups, group: int, unit: int) -> Groups | None:
        """A group on another processor; none if it is there, or cannot be."""
        own = self.repeated.home(group)
        if unit == away.get(group, own) or not self.repeated.can_run(group, unit):
            return None
        others = {g: u for g, u in away.items() if g != group}
        return others if unit == own else {**others, group: unit}

    def _evaluated(self, away: Groups) -> Evaluation:
        self.tried += 1
        found = self.repeated.evaluated(away)
        if self.tried == 1 or found.makespan_us < self.shortest.makespan_us:
            self.shortest = found
        return found
