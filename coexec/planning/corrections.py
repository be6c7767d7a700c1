"""What runs of whole programs say of predictions: looked up to plan, kept when plans were run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coexec.base.sources import package_digest, text_digest
from coexec.cost.distribution import Distribution
from coexec.cost.model import ProcessorCosts
from coexec.cost.predicted import PredictedCosts
from coexec.cost.whole import ALONE, LEAST_FACTOR, LEAST_US, Correction, Program, correction, learn
from coexec.placement.build_problem import Planned
from coexec.placement.policies.table import WAYS, Outcome, outcome_of
from coexec.placement.problem import Problem, Schedule
from coexec.planning.turns import Samples, best_alone, ratios_to, steady

OURS, RUNTIME = "coexec.", "coexec.runtime"
"""Packages whose code hands regions over: the runtime, and those of processors among ours."""


@dataclass(frozen=True)
class Corrections:
    """Of the times of tasks by processor (``alone``), and of makespans by way to spread work."""

    alone: Mapping[str, Correction] = field(default_factory=dict)
    ways: Mapping[str, Correction] = field(default_factory=dict)

    def of(self, planned: Planned) -> Planned:
        """A problem by the times of calls, corrected."""
        ways = {way: each.factor for way, each in self.ways.items()}
        return planned.corrected(self.alone, ways) if self.alone or ways else planned


NONE = Corrections()


@dataclass(frozen=True)
class Run:
    """Microseconds of a run on one processor, and the share of them in which it ``computes``.

    Between calls it does not: a runtime may take as long to go on as a small call takes. Where
    nobody knows that share, it computes all the time but for its ways to the host.
    """

    us: float
    computes: float | None = None


def known_corrections(
    program: Program, costs: Mapping[str, ProcessorCosts], problem: Problem
) -> Corrections:
    """What runs of the past say of a problem by the times of its calls."""
    members = team(costs, problem)
    if not members:
        return NONE
    alone = {}
    for number, name in _able(problem):
        busy_us = float(problem.time_us[:, number].sum())
        found = correction([costs[name]], program, ALONE, busy_us)
        if found is not None:
            alone[name] = found
    whole_us = float(problem.time_us.min(axis=1).sum())
    handed = handing_code(members)
    ways = {way: correction(members, program, way, whole_us, handed) for way in WAYS}
    return Corrections(alone, {way: each for way, each in ways.items() if each is not None})


def alone_corrections(problem: Problem, runs: Mapping[str, Run]) -> dict[str, Correction]:
    """How much longer tasks take on a processor, by a run of them all there.

    ``problem`` has the times of calls, ``runs`` are by name of the processor. What a run is known
    to take beside its tasks is left as it is; short ones say nothing, for that is most of them.
    Where it is known how long it computed, a way to the host that is predicted too long makes no
    task shorter. Between the calls of a single task nothing passes: what its run takes beside
    computing are its ways to the host, of which each share has its part.
    """
    found = {}
    for number, name in _able(problem):
        run = runs.get(name)
        busy_us = float(problem.time_us[:, number].sum())
        if run is not None and run.us >= LEAST_US and busy_us:
            tasks_us = run.us - (alone_us(problem, number) - busy_us)
            computing_us = tasks_us if run.computes is None else run.us * run.computes
            count = int((problem.time_us[:, number] > 0).sum())
            if count == 1:
                computing_us = max(computing_us, tasks_us)
            each_us = max(tasks_us - computing_us, 0.0) / count
            found[name] = Correction(max(computing_us / busy_us, LEAST_FACTOR), each_us)
    return found


def alone_us(problem: Problem, unit: int) -> float:
    """The predicted makespan of all tasks on one processor that executes them."""
    return outcome_of(problem, "", everything_on(problem, unit)).makespan_us


def everything_on(problem: Problem, unit: int) -> Schedule:
    """All tasks on one processor, in the order of the graph."""
    count = len(problem.tasks)
    return Schedule((unit,) * count, tuple(range(count)))


def learn_alone(
    program: Program,
    costs: Mapping[str, ProcessorCosts],
    problem: Problem,
    samples: Mapping[str, Sequence[float]],
    computes: Mapping[str, float | None],
) -> dict[str, Correction]:
    """Keep runs on one processor by its name; ``problem`` has the times of calls."""
    times = {name: Distribution.of(each) for name, each in samples.items()}
    runs = {name: Run(steady(each), computes.get(name)) for name, each in samples.items()}
    found = alone_corrections(problem, runs)
    numbers = {unit.name: number for number, unit in enumerate(problem.units)}
    for name, each in found.items():
        busy_us = float(problem.time_us[:, numbers[name]].sum())
        learn([costs[name]], program, ALONE, times[name], each, busy_us)
    return found


def learn_ways(
    members: Sequence[ProcessorCosts],
    program: Program,
    outcomes: Mapping[str, Outcome],
    samples: Samples,
) -> None:
    """Keep runs of plans by name: of several of one way, those of the best predicted one.

    It is what a way is predicted to take. Samples of other plans say nothing of predictions.
    """
    single = best_alone(samples)
    ratios = ratios_to(single, samples)
    several = (name for name, each in outcomes.items() if each.way in WAYS)
    ranked = sorted(several, key=lambda name: outcomes[name].makespan_us, reverse=True)
    for name in {outcomes[name].way: name for name in ranked}.values():
        # Beside its neighbours in time: the machine may be faster now than when they ran alone.
        beside = steady(ratios[name]) * outcomes[single].makespan_us if single else None
        learn_way(members, program, outcomes[name], samples[name], beside)


def learn_way(
    members: Sequence[ProcessorCosts],
    program: Program,
    outcome: Outcome,
    samples: Sequence[float],
    measured_us: float | None = None,
) -> None:
    """Keep runs of a plan on several processors, beside its timeline.

    ``measured_us`` is what they take where tasks take as long as the timeline says: what is steady
    of them without it.
    """
    time, predicted_us = Distribution.of(samples), outcome.timeline.makespan_us
    if predicted_us > 0:
        found = Correction((measured_us or steady(samples)) / predicted_us)
        handed = handing_code(members)
        learn(members, program, outcome.way, time, found, predicted_us, handed)


def handing_code(members: Sequence[ProcessorCosts]) -> str:
    """Digest of the code by which runs go from processor to processor.

    It is most of what a run on several takes beside its kernels. That of processors of other
    packages is theirs to tell of.
    """
    packages = (type(each.processor).__module__.rpartition(".")[0] for each in members)
    ours = sorted({name for name in packages if name.startswith(OURS)})
    return text_digest(" ".join(map(package_digest, [RUNTIME, *ours])))


def team(costs: Mapping[str, ProcessorCosts], problem: Problem) -> list[ProcessorCosts]:
    """Who a problem is for, by name; nobody if some of them are simulated: those are not run."""
    members = [costs[name] for name in sorted(unit.name for unit in problem.units)]
    simulated = any(isinstance(each, PredictedCosts) for each in members)
    return [] if simulated else members


def _able(problem: Problem) -> list[tuple[int, str]]:
    """Number and name of processors that execute all tasks."""
    return [
        (number, unit.name)
        for number, unit in enumerate(problem.units)
        if np.isfinite(problem.time_us[:, number]).all()
    ]
