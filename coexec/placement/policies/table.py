"""All policies by name, and ``auto``: what each of them would cost, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coexec.base.errors import UsageError
from coexec.placement.divide import Plain, divide
from coexec.placement.policies.branch_parallel import branch_parallel
from coexec.placement.policies.chain import chain
from coexec.placement.policies.exact import MISSING, SECONDS, exact, solver_is_there
from coexec.placement.policies.fallback_order import fallback_order
from coexec.placement.policies.greedy import greedy
from coexec.placement.policies.heft import heft
from coexec.placement.policies.operator_split import operator_split
from coexec.placement.policies.pipeline import pipeline
from coexec.placement.policies.single_best import single_best
from coexec.placement.problem import Problem, Schedule
from coexec.placement.stream import stream_rates
from coexec.placement.timeline import Timeline, simulate

Policy = Callable[[Problem], Schedule]

SINGLE_BEST, FALLBACK = "single_best", "fallback_order"
POLICIES: Mapping[str, Policy] = {
    SINGLE_BEST: single_best,
    "greedy": greedy,
    "chain": chain,
    "heft": heft,
    "branch_parallel": branch_parallel,
    "operator_split": operator_split,
    FALLBACK: fallback_order,
}
"""Fast policies; of equal ones the first is taken."""

AUTO, EXACT, ALL = "auto", "exact", "all"
PIPELINE = "pipeline"
"""Shortens the time between the inputs of a stream, not that of one input: only when asked for."""
BATCH_PARALLEL = "batch_parallel"
"""Divides the batch, which changes the graph: :mod:`coexec.planning.batch`."""
NAMES = (*POLICIES, BATCH_PARALLEL, PIPELINE, EXACT, AUTO)
EXACT_TASKS = 60
"""``all`` tries the exact policy on graphs of so many tasks at most."""
WORTH = 0.01
"""``auto`` leaves a single processor only for a gain of this share of its time: predictions are not
better than that, and one processor cannot lose to itself."""


ONE, PLACED, DIVIDED = "one processor", "operators placed", "operators in shares"
BATCH_DIVIDED = "batch in shares"
WAYS = (PLACED, DIVIDED, BATCH_DIVIDED)
"""How plans spread work over several processors: what one of them overlooks, others do alike."""


@dataclass(frozen=True)
class Outcome:
    """What a policy made of a problem; ``note`` says how far an exact search came.

    ``timeline`` is that of ``plain``, where shares of divided tasks are tasks of their own. By what
    ``plain`` knows of runs in this :attr:`way`, its makespan is corrected.
    """

    policy: str
    schedule: Schedule
    plain: Plain
    timeline: Timeline
    note: str = ""

    @property
    def makespan_us(self) -> float:
        return self.timeline.makespan_us * self.correction

    @property
    def way(self) -> str:
        """On one processor, or one of :data:`WAYS`."""
        if len(set(self.plain.schedule.units)) < 2:
            return ONE
        if self.policy == BATCH_PARALLEL:
            return BATCH_DIVIDED
        return DIVIDED if self.schedule.shares else PLACED

    @property
    def correction(self) -> float:
        """How many times longer than its timeline a run takes."""
        return self.plain.problem.corrections.get(self.way, 1.0)

    def span_us(self, task: int) -> tuple[float, float]:
        """When a task of the problem starts and ends; of a divided one its shares and copies."""
        own = [new for new, old in enumerate(self.plain.origin) if old == task]
        starts, ends = self.timeline.start_us, self.timeline.end_us
        return min(starts[new] for new in own), max(ends[new] for new in own)


@dataclass(frozen=True)
class Ranking:
    """Outcomes by predicted makespan, best first; ``chosen`` is the one to take.

    ``left_out`` names policies that were not tried, with the reason.
    """

    chosen: Outcome
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]


def rank(
    problem: Problem, policy: str = AUTO, exact_seconds: float = SECONDS, only: str = ""
) -> Ranking:
    """Run every fast policy; ``pipeline`` if named, and ``exact`` if named or the graph is small.

    ``policy`` is a name of :data:`NAMES`, or ``all``: each of them, choosing as ``auto`` does. Of
    all these, ``only`` one and ``single_best`` are run if that is said.

    Raises:
        UsageError: ``exact`` is named and its solver is not installed, or ``pipeline`` is named and
            states live on devices.
    """
    found = {name: outcome_of(problem, name, POLICIES[name](problem)) for name in _fast(only)}
    left_out: dict[str, str] = {}
    reason = _why_not_exact(problem, only or policy)
    if reason:
        left_out[EXACT] = reason
    else:
        whole = [outcome for outcome in found.values() if not outcome.schedule.shares]
        best = min(whole, key=lambda outcome: outcome.makespan_us)
        solution = exact(problem, best.schedule, exact_seconds)
        note = "optimal" if solution.proved else f"not below {solution.bound_us / 1e3:.3f} ms"
        found[EXACT] = outcome_of(problem, EXACT, solution.schedule, note)
    reason = _why_not_pipeline(problem, only or policy)
    if reason:
        left_out[PIPELINE] = reason
    else:
        found[PIPELINE] = _pipeline(problem)
    outcomes = sorted(found.values(), key=lambda outcome: outcome.makespan_us)
    chosen = found[policy] if policy in found else _worth_it(found[SINGLE_BEST], outcomes[0])
    return Ranking(chosen, tuple(outcomes), left_out)


def _fast(only: str) -> list[str]:
    """The fast policies that are run; ``exact`` starts from the best of them all."""
    everything = only in ("", EXACT)
    return [name for name in POLICIES if everything or name in (SINGLE_BEST, only)]


def _worth_it(alone: Outcome, best: Outcome) -> Outcome:
    return best if best.makespan_us < (1 - WORTH) * alone.makespan_us else alone


def _why_not_exact(problem: Problem, policy: str) -> str:
    """Why the exact policy is not tried; empty if it is."""
    if policy == EXACT:
        return ""
    if policy != ALL:
        return f"it takes long: ask for --policy {EXACT} or --policy {ALL}"
    if not solver_is_there():
        return MISSING
    if len(problem.tasks) > EXACT_TASKS:
        return f"{len(problem.tasks)} tasks are more than {EXACT_TASKS}: ask for --policy {EXACT}"
    return ""


def _why_not_pipeline(problem: Problem, policy: str) -> str:
    """Why the pipeline is not tried; empty if it is."""
    if any(tensor.home is not None for tensor in problem.tensors):
        reason = "a training step waits for the one before: there is no stream of them"
        if policy == PIPELINE:
            raise UsageError(f"--policy {PIPELINE}: {reason}")
        return reason
    if policy not in (PIPELINE, ALL):
        return f"it is for streams of inputs: ask for --policy {PIPELINE}"
    return ""


def _pipeline(problem: Problem) -> Outcome:
    schedule = pipeline(problem)
    rate = stream_rates(problem, schedule).pipeline
    return outcome_of(problem, PIPELINE, schedule, f"a stream yields {rate:.1f} inputs/s")


def outcome_of(problem: Problem, policy: str, schedule: Schedule, note: str = "") -> Outcome:
    """A schedule with its timeline, as the outcome of a policy; ``schedule`` is checked."""
    schedule.check(problem)
    plain = divide(problem, schedule)
    return Outcome(policy, schedule, plain, simulate(plain.problem, plain.schedule), note)
