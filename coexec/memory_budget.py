"""The fastest training step within a budget of memory: which techniques, and what each gives.

Every recipe that a technique offers is planned, its activations are recomputed as far as the budget
asks (:mod:`coexec.memory.choose`), and the fastest by the cost model is taken. What decides in the
end is the arena of the compiled program: where that is above the budget, the goal is tightened.
Deciding what to recompute by costs follows Jain et al., "Checkmate", 2020 (arXiv 1910.02653).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from coexec.base.errors import MemoryBudgetError
from coexec.base.units import bytes_text
from coexec.core.program import SCRATCH, STATE, Program
from coexec.core.types import Array
from coexec.memory.build_problem import Measure, build_problem
from coexec.memory.choose import choose, least_peak
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem
from coexec.memory_techniques import REMATERIALISATION, TECHNIQUES, Technique
from coexec.step_builder import Recipe

ROUNDS = 5
"""Times that the goal is tightened if the compiled program is above the budget."""
NAMED = 6
"""Tensors that a refusal names."""


@dataclass(frozen=True)
class Setting:
    """How a step is computed: its recipe, and the activations that are recomputed by name."""

    recipe: Recipe
    recompute: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lowered:
    """The programs of a step under a setting, and its legal graph (nothing recomputed in it)."""

    graph: ir.Graph
    programs: tuple[Program, ...]

    @property
    def peak_bytes(self) -> int:
        return combined_bytes(self.programs)


@dataclass(frozen=True)
class TechniqueUse:
    """A row of the table: what a technique did on top of those before it.

    ``detail`` says with what setting, ``saved_bytes`` of the peak, ``cost_ms`` a step (predicted).
    """

    technique: str
    detail: str
    exact: bool
    saved_bytes: int
    cost_ms: float


@dataclass(frozen=True)
class MemoryPlan:
    """A setting that fits, its planned peak beside that of the plain step, and how it came about.

    Times are predictions in ms a step; ``refused`` are techniques with the reason.
    """

    setting: Setting
    budget_bytes: int
    peak_bytes: int
    plain_bytes: int
    step_ms: float
    plain_ms: float
    used: tuple[TechniqueUse, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


Lower = Callable[[Setting], Lowered]


@dataclass(frozen=True)
class Question:
    """What is to be trained: the model, the recipe as asked for, and a batch."""

    model: ir.Model
    recipe: Recipe
    arrays: Mapping[str, Array]


def combined_bytes(programs: Sequence[Program]) -> int:
    """Device memory of programs over the same states: those and the arenas are shared."""
    shared: dict[str, int] = {}
    own = 0
    for program in programs:
        own += program.constant_bytes
        for buffer in program.buffers:
            if buffer.shares:
                continue
            if buffer.role in (STATE, SCRATCH):
                shared[buffer.name] = max(shared.get(buffer.name, 0), buffer.nbytes)
            else:
                own += buffer.nbytes
    return own + sum(shared.values())


def plan_memory(
    question: Question,
    budget: int,
    lower: Lower,
    cost_us: Measure,
    techniques: Sequence[Technique] = TECHNIQUES,
) -> MemoryPlan:
    """The fastest setting whose programs take at most ``budget`` bytes.

    Raises:
        MemoryBudgetError: none does; with the least that one would take, and what stands in the
            way.
    """
    return _Planner(question, budget, lower, cost_us).run(techniques)


@dataclass(frozen=True)
class _Variant:
    """A recipe with nothing recomputed: its peak, its problem, its predicted time."""

    recipe: Recipe
    technique: Technique | None
    peak: int
    problem: StepProblem

    @property
    def step_us(self) -> float:
        return self.problem.total_us * self.recipe.micro_batches

    @property
    def fixed(self) -> int:
        """Bytes beside the arena of activations."""
        return self.peak - usage(self.problem).peak


@dataclass(frozen=True)
class _Found:
    """A setting with its real peak and predicted time."""

    setting: Setting
    variant: _Variant
    peak: int
    step_us: float


class _Planner:
    def __init__(self, question: Question, budget: int, lower: Lower, cost_us: Measure) -> None:
        self.question = question
        self.budget = budget
        self.lower = lower
        self.cost_us = cost_us
        self.refused: dict[str, str] = {}

    def run(self, techniques: Sequence[Technique]) -> MemoryPlan:
        plain = self._variant(self.question.recipe, None)
        if plain.peak <= self.budget:
            return self._plan(
                plain, _Found(Setting(plain.recipe), plain, plain.peak, plain.step_us)
            )
        variants = [plain, *self._variants(techniques)]
        found: list[_Found] = []
        # In order of what they promise: the first that keeps its promise is the fastest.
        for promised_us, variant in sorted(
            ((self._promise(each), each) for each in variants), key=lambda pair: pair[0]
        ):
            fitting = [each for each in found if each.peak <= self.budget]
            if fitting and min(each.step_us for each in fitting) <= promised_us:
                break
            found.append(self._fit(variant, self.budget))
        fitting = [each for each in found if each.peak <= self.budget]
        if not fitting:
            raise self._refusal(plain, self._smallest(found))
        return self._plan(plain, min(fitting, key=lambda each: each.step_us))

    def _variants(self, techniques: Sequence[Technique]) -> list[_Variant]:
        found = []
        question = self.question
        for technique in techniques:
            reason = technique.refusal(question.model, question.recipe, question.arrays)
            if reason:
                self.refused[technique.name] = reason
                continue
            recipes = technique.variants(question.recipe, question.arrays)
            found += [self._variant(recipe, technique) for recipe in recipes]
        return found

    def _variant(self, recipe: Recipe, technique: Technique | None) -> _Variant:
        lowered = self.lower(Setting(recipe))
        problem = step_problem(lowered, self.cost_us)
        return _Variant(recipe, technique, lowered.peak_bytes, problem)

    def _promise(self, variant: _Variant) -> float:
        """Microseconds of a step that fits by the lifetimes alone; much more if it never will."""
        choice = choose(variant.problem, self.budget - variant.fixed)
        count = variant.recipe.micro_batches
        late = 0.0 if choice.peak + variant.fixed <= self.budget else 1e12
        return variant.step_us + count * choice.extra_us + late

    def _fit(self, variant: _Variant, budget: int) -> _Found:
        """Recompute as little as the compiled program allows."""
        goal = budget - variant.fixed
        lowest: _Found | None = None
        for _ in range(ROUNDS):
            choice = choose(variant.problem, goal)
            setting = Setting(variant.recipe, choice.names(variant.problem))
            peak = self.lower(setting).peak_bytes if choice.recomputed else variant.peak
            extra = choice.extra_us * variant.recipe.micro_batches
            found = _Found(setting, variant, peak, variant.step_us + extra)
            if lowest is None or found.peak < lowest.peak:
                lowest = found
            if peak <= budget or choice.peak > goal:
                break
            goal -= peak - budget
        assert lowest is not None
        return lowest

    def _smallest(self, found: Sequence[_Found]) -> _Found:
        """The lowest peak for which asking for just that much gives a plan."""
        best = min(found, key=lambda each: each.peak)
        for factor in (1.0, 1.03, 1.1, 1.25):
            budget = int(best.peak * factor)
            again = self._fit(best.variant, budget)
            if again.peak <= budget:
                return again
        return _Found(Setting(best.variant.recipe), best.variant, best.variant.peak, 0.0)

    def _plan(self, plain: _Variant, found: _Found) -> MemoryPlan:
        return MemoryPlan(
            found.setting,
            self.budget,
            found.peak,
            plain.peak,
            found.step_us / 1e3,
            plain.step_us / 1e3,
            tuple(_uses(plain, found)),
            self.refused,
        )

    def _refusal(self, plain: _Variant, found: _Found) -> MemoryBudgetError:
        problem = found.variant.problem
        needed = found.variant.fixed + least_peak(problem)
        holders = ", ".join(
            f"{name} ({bytes_text(nbytes)})" for name, nbytes in self._holders(found)[:NAMED]
        )
        refused = "".join(f"; {name} cannot be used: {why}" for name, why in self.refused.items())
        return MemoryBudgetError(
            f"no training step fits {bytes_text(self.budget)}: the plain one takes "
            f"{bytes_text(plain.peak)}, the smallest found {bytes_text(found.peak)} (no plan of "
            f"these techniques takes less than {bytes_text(needed)}). In the way: {holders}"
            f"{refused}. Give --memory {_rounded(found.peak)} or a smaller batch",
            found.peak,
        )

    def _holders(self, found: _Found) -> list[tuple[str, int]]:
        """What holds most at the peak: states together, and the largest tensors of the arena."""
        programs = self.lower(found.setting).programs
        by_role: dict[str, int] = {}
        for program in programs[:1]:
            for buffer in program.buffers:
                if buffer.role != SCRATCH:
                    role = {STATE: "parameters and optimizer state"}.get(
                        buffer.role, f"{buffer.role} buffers"
                    )
                    by_role[role] = by_role.get(role, 0) + buffer.nbytes
        problem = found.variant.problem
        recomputed = {
            index for index, name in enumerate(problem.tensors) if name in found.setting.recompute
        }
        used = usage(problem, recomputed)
        held = {
            problem.tensors[root % len(problem.tensors)]: problem.nbytes[
                root % len(problem.tensors)
            ]
            for root in used.live_at(used.peak_event)
        }
        return sorted({**by_role, **held}.items(), key=lambda pair: -pair[1])


def step_problem(lowered: Lowered, cost_us: Measure) -> StepProblem:
    """The memory problem of a lowered step, with the working memory that its kernels take."""
    program = lowered.programs[0]
    own = {buffer.name.partition("@")[0] for buffer in program.buffers}
    bare = build_problem(lowered.graph, own, cost_us)
    live: dict[str, int] = {}
    for executable in program.executables:
        for name, nbytes in executable.arena_use():
            for part in name.split("+"):
                live[part] = max(live.get(part, 0), nbytes)
    used = usage(bare)
    nodes = list(bare.nodes)
    for event, planned in zip(used.events, used.live, strict=True):
        node = nodes[event.node]
        nodes[event.node] = replace(node, workspace=max(live.get(node.name, 0) - planned, 0))
    return replace(bare, nodes=tuple(nodes))


def _uses(plain: _Variant, found: _Found) -> list[TechniqueUse]:
    uses = []
    variant = found.variant
    if variant.technique is not None:
        count = variant.recipe.micro_batches
        detail = f"{count} parts" if count > 1 else ""
        cost = (variant.step_us - plain.step_us) / 1e3
        name, exact = variant.technique.name, variant.technique.exact
        uses.append(TechniqueUse(name, detail, exact, plain.peak - variant.peak, cost))
    if found.setting.recompute:
        detail = f"{len(found.setting.recompute)} tensors"
        cost = (found.step_us - variant.step_us) / 1e3
        saved = variant.peak - found.peak
        uses.append(TechniqueUse(REMATERIALISATION, detail, True, saved, cost))
    return uses


def _rounded(nbytes: int) -> str:
    """The budget that takes so many bytes, in whole MiB (KiB below one)."""
    unit, name = (2**20, "MiB") if nbytes >= 2**20 else (2**10, "KiB")
    return f"{-(-nbytes // unit)}{name}"
