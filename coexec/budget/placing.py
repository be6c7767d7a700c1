"""Plans of steps within a budget: memory, recomputation and placement decided together.

Each form of a plan (all on one processor, operators placed, the batch in shares) is tried with as
much recomputed as it needs, by the arenas and buffers of all processors together; repetitions are
placed by cost like all nodes. In the form :data:`JOINT`, what is recomputed is decided on the
timeline of a placed step (:mod:`coexec.budget.joint`), so that what an idle processor repeats costs
nothing. The fastest predicted that fits is taken. What decides whether it does is the lowered
program: where that is above the budget, more is recomputed and the step placed again.

All of it is searched with updates at the end of the step, and once more with early ones, unless
that keeps the budget without recomputing anything or all gradients must be looked at together.
Where something has to be recomputed, early ones come first: they need less memory, and what is
predicted to take longer than a plan that fits is not looked at any closer. Where they lead to a
plan, updates at the end are only tried with its policy, and only if one processor that keeps the
budget recomputes for a shorter time then. All policies are ranked once for each way to update; of a
form, the policy that was fastest then is followed where more is recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Generic, Protocol, Self, TypeVar

from coexec.base.errors import MemoryBudgetError
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.joint import Joint, decide
from coexec.budget.placed import placed_program, refusal, step_graph
from coexec.budget.repetitions import PlacedStep
from coexec.budget.settings import Setting
from coexec.budget.variants import Known
from coexec.core.plan import Plan
from coexec.core.program import Program, combined_bytes
from coexec.core.types import Array
from coexec.memory.lifetimes import usage
from coexec.placement.build_problem import Planned
from coexec.placement.policies.table import ALL, AUTO, BATCH_PARALLEL, Outcome, Ranking, outcome_of
from coexec.placement.problem import Problem, Schedule

ROUNDS = 6
"""Times that a form is placed: each time with more that is recomputed."""
FURTHER = 1.25
"""Times what is missing, in each round as many times more: one tensor less saves less on several
processors."""
JOINT = "joint"
FORMS: tuple[Callable[[Outcome], bool], ...] = (
    lambda outcome: len(set(outcome.schedule.units)) == 1,
    lambda outcome: outcome.policy == BATCH_PARALLEL,
    lambda outcome: outcome.policy != BATCH_PARALLEL and len(set(outcome.schedule.units)) > 1,
)
"""All on one processor, the batch in shares, operators placed: of each the fastest is tried."""


class Placing(Protocol):
    """What is needed of a planning (:class:`coexec.planning.planner.Planning`)."""

    @property
    def plan(self) -> Plan: ...

    @property
    def ranking(self) -> Ranking: ...

    @property
    def whole(self) -> Planned: ...

    def plan_of(self, outcome: Outcome) -> Plan: ...

    def choosing(self, outcome: Outcome) -> Self: ...


P = TypeVar("P", bound=Placing)
Place = Callable[[tuple[str, ...], bool, bool, Plan | None], P]
"""A planning of a step in which these activations are recomputed; whether the batch may be divided,
whether large states are updated early, and a plan whose policy alone is followed (else all are).
"""
EARLY = ", early updates"
"""Behind the policy in the name of a form."""


@dataclass(frozen=True)
class Tried:
    """A form of a plan: bytes on all processors (none: it was slower than what fitted already).

    ``step_ms`` are predicted milliseconds of a step in which so many tensors are ``recomputed``.
    """

    form: str
    peak_bytes: int | None
    step_ms: float
    recomputed: int
    fits: bool


@dataclass(frozen=True)
class Within(Generic[P]):
    """A plan that keeps a budget, what led to it, and what else was tried."""

    plan: Plan
    placing: P
    tried: tuple[Tried, ...]


def placed_within(
    steps: BudgetedSteps, arrays: Mapping[str, Array], place: Place[P], policy: str = AUTO
) -> Within[P]:
    """The fastest plan found of a step on ``arrays`` that keeps the budget of ``steps``.

    With a ``policy`` other than ``auto`` and ``all``, the plan is that policy's; :data:`JOINT` is
    one of them.

    Raises:
        MemoryBudgetError: nothing that was tried fits; with what stands in the way.
    """
    found: _Found[P] = _Found()
    refused: MemoryBudgetError | None = None
    for search in _in_order([_Search(way, arrays, place, found) for way in _ways(steps)]):
        try:
            search.run(policy, None if found.best is None or search.early else found.best[1])
        except MemoryBudgetError as error:
            if refused is None or error.least_bytes < refused.least_bytes:
                refused = error
        if found.best is not None and not found.best[1].recompute:
            break
    if found.best is None:
        alone = refused if found.smallest is None else None
        raise alone or found.refusal(steps.nbytes, policy)
    return Within(found.best[1], found.best[2], tuple(found.tried))


def _ways(steps: BudgetedSteps) -> Iterator[BudgetedSteps]:
    """Steps with updates at their end, then with early ones, if they may come early."""
    yield steps
    if not steps.recipe.looks_at_gradients:
        yield steps.by(replace(steps.recipe, updates="early"))


def _in_order(searches: list[_Search[P]]) -> list[_Search[P]]:
    """Early updates first, unless a step on one processor fits as it is without them."""
    plain = searches[0].plain_bytes()
    return searches if plain <= searches[0].steps.nbytes else searches[::-1]


@dataclass
class _Found(Generic[P]):
    """The fastest plan that fits with its time, what was tried, and the smallest program.

    ``again_us`` is how long one processor that keeps the budget recomputes, by updates as there.
    """

    tried: list[Tried] = field(default_factory=list)
    best: tuple[float, Plan, P] | None = None
    again_us: float = inf
    smallest: Program | None = None

    def note(self, row: Tried) -> None:
        """The last of a form counts."""
        self.tried = [each for each in self.tried if each.form != row.form] + [row]

    def refusal(self, nbytes: int, policy: str) -> MemoryBudgetError:
        """Nothing that was tried fits."""
        if self.smallest is not None:
            return refusal(nbytes, self.smallest)
        return MemoryBudgetError(
            f"--policy {policy} makes no plan of this step within a budget: use --policy {AUTO}",
            nbytes,
        )


class _Search(Generic[P]):
    """The search with one way to update: what is better than ``found`` goes there."""

    def __init__(
        self,
        steps: BudgetedSteps,
        arrays: Mapping[str, Array],
        place: Place[P],
        found: _Found[P],
    ) -> None:
        self.steps = steps
        self.arrays = arrays
        self.early = steps.recipe.updates == "early"
        self.place = place
        self.found = found
        self.known = Known()
        self.graph = step_graph(steps, arrays)
        self.placings: dict[tuple[str, ...], P] = {}
        self.choices: dict[int, tuple[str, ...] | MemoryBudgetError] = {}
        self.again_us = 0.0

    def run(self, policy: str, like: Plan | None) -> None:
        """Try the forms of a policy; of a plan to be ``like``, if there is one, only its own.

        Raises:
            MemoryBudgetError: by recomputing, no step on one processor fits either.
        """
        recompute = self._recomputed(self.steps.nbytes)
        self.again_us = self._again_us(recompute)
        if like is not None and self.again_us >= self.found.again_us:
            return
        only = policy if like is None else like.policy
        if only == JOINT:
            self._decide_together(None, with_readers=True)
        elif only in (AUTO, ALL):
            self._try_all(self._placing(recompute, None))
        else:
            self._fit(lambda outcome: outcome.policy == only, like)

    def _try_all(self, first: P) -> None:
        """Try all forms, the fastest first, by the policies that were best in the ``first``."""
        picked = [(form, _pick(first, form)) for form in FORMS]
        found = [(each.makespan_us, form) for form, each in picked if each is not None]
        for _, form in sorted(found, key=lambda pair: pair[0]):
            self._fit(form)
        several = picked[-1][1]
        whole = several is not None and not several.schedule.shares
        outcome = several if whole else picked[0][1]
        self._decide_together(first.plan_of(outcome) if outcome is not None else None)

    def plain_bytes(self) -> int:
        """What the step takes on one processor with nothing recomputed."""
        return self.steps.lower(Setting(self.steps.recipe), self.arrays).peak_bytes

    def _recomputed(self, goal: int) -> tuple[str, ...]:
        """What to recompute for a goal, which each form begins with.

        Raises:
            MemoryBudgetError: by recomputing, no step on one processor takes so little.
        """
        if goal not in self.choices:
            try:
                self.choices[goal] = self.steps.recomputed(self.arrays, goal, self.known)
            except MemoryBudgetError as error:
                self.choices[goal] = error
        found = self.choices[goal]
        if isinstance(found, MemoryBudgetError):
            raise found
        return found

    def _placing(self, recompute: tuple[str, ...], like: Plan | None) -> P:
        """The step placed by all policies, or at least by that of a plan to be ``like``."""
        found = self.placings.get(recompute)
        if found is None:
            found = self.place(recompute, True, self.early, like)
            if like is None:
                self.placings[recompute] = found
        return found

    def _fit(self, form: Callable[[Outcome], bool], like: Plan | None = None) -> None:
        """Recompute more until the fastest plan of a form fits, or is slower than what does.

        All policies are ranked once, unless a plan to be ``like`` is there; then it is followed.
        """
        goal, lowest = self.steps.nbytes, False
        for number in range(ROUNDS):
            try:
                recompute = self._recomputed(goal)
            except MemoryBudgetError as error:
                if lowest:
                    return  # what was tried before says how much that form takes
                lowest, goal = True, error.least_bytes
                continue
            placing = self._placing(recompute, like)
            outcome = _pick(placing, form)
            if outcome is None:
                return
            like = placing.plan_of(outcome)
            excess = self._consider(placing.choosing(outcome), outcome.makespan_us, recompute)
            if excess <= 0:
                return
            goal -= int(excess * FURTHER ** (number + 1))

    def _decide_together(self, like: Plan | None, *, with_readers: bool = False) -> None:
        """What is recomputed is decided on the timeline of the step with nothing recomputed.

        That is placed as a plan to be ``like``, or on one processor. Where all of it is made again
        ``with_readers``, on their processors, other forms have that.
        """
        placing = self.placings.get(()) or self.place((), False, self.early, like)
        for form in (FORMS[0], FORMS[2]):
            outcome = _pick(placing, form)
            if outcome is None or self._is_slower(outcome.makespan_us):
                continue  # what is recomputed makes it no faster
            if not outcome.schedule.shares:
                self._fit_together(placing, outcome.schedule.units, with_readers)

    def _fit_together(self, placing: P, units: tuple[int, ...], with_readers: bool) -> None:
        """Decide for the budget, then for less, until the step fits or is slower than what does."""
        plain = self.known.variants[()]
        step = PlacedStep(plain.problem, placing.whole.problem, units)
        goal, alone = self.steps.nbytes - plain.fixed, _pick(placing, FORMS[0])
        like = None if alone is None else placing.plan_of(alone)
        for number in range(ROUNDS):
            found = decide(step, goal)
            if found is None or not (found.elsewhere or with_readers):
                return
            placing = self.place(found.recompute, False, self.early, like)
            outcome = outcome_of(placing.whole.problem, JOINT, _schedule(placing, found))
            # The timeline of the search also knows when memory is there to be written again.
            longest = max(outcome.makespan_us, found.makespan_us * outcome.correction)
            excess = self._consider(placing.choosing(outcome), longest, found.recompute)
            if excess <= 0:
                return
            goal -= int(excess * FURTHER ** (number + 1))

    def _consider(self, placing: P, step_us: float, recompute: tuple[str, ...]) -> int:
        """Bytes above the budget; 0 for what is slower than a plan that fits: it is not lowered."""
        plan = replace(placing.plan, recompute=recompute, predicted_us=step_us, early=self.early)
        form, found = f"{plan.policy}{EARLY if self.early else ''}", self.found
        row = Tried(form, None, step_us / 1e3, len(recompute), False)
        if self._is_slower(step_us):
            found.note(row)
            return 0
        program = placed_program(self.steps, plan, self.graph)
        peak = combined_bytes((program,))
        excess = peak - self.steps.nbytes
        found.note(replace(row, peak_bytes=peak, fits=excess <= 0))
        if excess <= 0:
            found.best, found.again_us = (step_us, plan, placing), self.again_us
        if found.smallest is None or peak < combined_bytes((found.smallest,)):
            found.smallest = program
        return max(excess, 0)

    def _again_us(self, recompute: tuple[str, ...]) -> float:
        """How long one processor recomputes for that."""
        problem = self.known.variants[()].problem
        return usage(problem, *problem.numbers(recompute)).extra_us

    def _is_slower(self, step_us: float) -> bool:
        """Whether a plan that fits is predicted to take no longer."""
        return self.found.best is not None and self.found.best[0] <= step_us


def _pick(placing: Placing, form: Callable[[Outcome], bool]) -> Outcome | None:
    """The fastest plan of a form."""
    found = (each for each in placing.ranking.outcomes if form(each))
    return min(found, key=lambda each: each.makespan_us, default=None)


def _schedule(placing: Placing, joint: Joint) -> Schedule:
    """Where and when the nodes of a step with repetitions run, as numbers."""
    problem: Problem = placing.whole.problem
    units = {unit.name: number for number, unit in enumerate(problem.units)}
    numbers = {task.name: number for number, task in enumerate(problem.tasks)}
    processors, order = joint.evaluation.processors, joint.evaluation.order
    places = tuple(units[processors[task.name]] for task in problem.tasks)
    return Schedule(places, tuple(numbers[name] for name in order))
