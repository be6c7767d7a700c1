"""Forms of a training step that a search for memory compares, and what each promises.

A promise is the time of a step that fits, by the lifetimes alone. Rough ones take the plan of the
chains as it is (:func:`coexec.memory.choose.choose`, ``quick``), shortened by as much as descent
was seen to improve others; exact ones take many times as long. What was found out is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from coexec.budget.settings import Setting, TechniqueUse
from coexec.budget.techniques import REMATERIALISATION, Offer, Technique
from coexec.memory.choose import choose
from coexec.memory.live_bytes import live_bytes
from coexec.memory.lower_bound import peak_bound, widest_node
from coexec.memory.problem import Choice, StepProblem

NEVER_US = 1e12
HOPE = 0.5
"""Of the time that a rough plan takes: so little may be left where nothing was refined yet."""
ROUGH = 1.3
"""Times the budget: a rough plan that takes more is not refined until it fits."""

SPARED = 1.25
"""Times its usual time: a node whose kernel works in less memory. Of 57 calls of ViT-tiny and two
ResNets, convolutions took 0.93 to 1.0, products 1.0 to 1.3, input gradients 1.2 to 2.4."""

Key = tuple[tuple[str, str], ...]
"""Names and settings of the techniques that made a variant."""


def spared(problem: StepProblem, usual: StepProblem) -> StepProblem:
    """``problem`` with the time that kernels take longer which work in less than in ``usual``."""
    most = {node.name: node.workspace for node in usual.nodes}
    nodes = (
        replace(node, cost_us=SPARED * node.cost_us)
        if node.workspace < most.get(node.name, 0)
        else node
        for node in problem.nodes
    )
    return replace(problem, nodes=tuple(nodes))


@dataclass(frozen=True, eq=False)
class Variant:
    """A recipe with nothing recomputed: its peak, its problem, and how it came about.

    ``beside`` are bytes by kind that are there whatever is recomputed.
    """

    offer: Offer
    peak: int
    problem: StepProblem
    beside: Mapping[str, int]
    key: Key
    technique: Technique | None = None
    before: Variant | None = None

    @property
    def step_us(self) -> float:
        return self.problem.total_us * self.count

    @property
    def count(self) -> int:
        return self.offer.recipe.micro_batches

    @cached_property
    def fixed(self) -> int:
        """Bytes beside the arena of activations."""
        return self.peak - live_bytes(self.problem).peak

    @cached_property
    def least(self) -> int:
        """Bytes that no plan goes below."""
        return self.fixed + peak_bound(self.problem)

    @cached_property
    def widest(self) -> int:
        """Bytes of the node that needs most by itself: what is asked for below is as good."""
        return widest_node(self.problem)

    def chain(self) -> list[Variant]:
        """The variants that this one was made of, the plain one first."""
        return [*(self.before.chain() if self.before else []), self]

    @property
    def exact(self) -> bool:
        return all(each.technique is None or each.technique.exact for each in self.chain())


@dataclass(frozen=True)
class Found:
    """A setting with its real peak and predicted time."""

    setting: Setting
    variant: Variant
    peak: int
    step_us: float


@dataclass(frozen=True)
class Known:
    """Variants of a question, lowered; what to recompute in each for a goal (maybe quick).

    ``peaks`` are those of lowered programs by variant and by what is recomputed.
    """

    variants: dict[Key, Variant] = field(default_factory=dict)
    peaks: dict[tuple[Key, tuple[str, ...]], int] = field(default_factory=dict)
    _choices: dict[tuple[Key, int], Choice] = field(default_factory=dict)
    _quick: dict[tuple[Key, int], Choice] = field(default_factory=dict)

    def chosen(self, variant: Variant, goal: int) -> Choice:
        """What to recompute so that the lifetimes take ``goal`` bytes."""
        key = (variant.key, max(goal, variant.widest))
        if key not in self._choices:
            self._choices[key] = choose(variant.problem, goal)
        return self._choices[key]

    def quick(self, variant: Variant, goal: int) -> Choice:
        """The same, rough if that is not known yet."""
        key = (variant.key, max(goal, variant.widest))
        if key not in self._quick:
            self._quick[key] = choose(variant.problem, goal, quick=True)
        return self._choices.get(key, self._quick[key])

    def lowest(self, variant: Variant) -> Choice:
        """About the least that the lifetimes can take, roughly."""
        return self.quick(variant, 0)

    def promise(self, variant: Variant, budget: int) -> float:
        """Microseconds of a step that fits by the lifetimes alone; ``NEVER_US`` if none does."""
        goal = budget - variant.fixed
        if self._hopeless(variant, budget):
            return NEVER_US
        choice = self.chosen(variant, goal)
        if choice.peak > goal:
            return NEVER_US
        return variant.step_us + variant.count * choice.extra_us

    def hope(self, variant: Variant, budget: int) -> float:
        """The same, roughly: no more than what refining is likely to leave."""
        goal = budget - variant.fixed
        if self._hopeless(variant, budget):
            return NEVER_US
        choice = self.quick(variant, goal)
        if choice.peak > ROUGH * goal:
            return NEVER_US
        if (variant.key, max(goal, variant.widest)) in self._choices:
            return self.promise(variant, budget)
        return variant.step_us + variant.count * choice.extra_us * self._refined()

    def _hopeless(self, variant: Variant, budget: int) -> bool:
        """Whether even the lowest peak found for less memory is above ``budget``."""
        goal = budget - variant.fixed
        lowest = (
            choice.peak
            for (key, known), choice in self._choices.items()
            if key == variant.key and known < goal and choice.peak > known
        )
        return variant.least > budget or min(lowest, default=0) > goal

    def _refined(self) -> float:
        """What refining has left at best of the time that rough plans take for recomputing."""
        shares = (
            self._choices[key].extra_us / quick.extra_us
            for key, quick in self._quick.items()
            if key in self._choices and quick.extra_us
        )
        return min(shares, default=HOPE)


def uses(found: Found) -> Iterator[TechniqueUse]:
    """Rows of the table: what each technique did on top of those before it."""
    chain = found.variant.chain()
    for before, variant in pairwise(chain):
        technique = variant.technique
        assert technique is not None
        cost = (variant.step_us - before.step_us) / 1e3
        saved = before.peak - variant.peak
        detail = variant.offer.detail
        yield TechniqueUse(technique.name, detail, technique.exact, saved, cost)
    if found.setting.recompute:
        detail = f"{len(found.setting.recompute)} tensors"
        cost = (found.step_us - found.variant.step_us) / 1e3
        saved = found.variant.peak - found.peak
        yield TechniqueUse(REMATERIALISATION, detail, True, saved, cost)
