"""The fastest training step within a budget of memory: which techniques, and what each gives.

Every recipe that a technique offers is planned, its activations are recomputed as far as the budget
asks (:mod:`coexec.memory.choose`), and the fastest by the cost model is taken. Where that is not
nearly as fast as the plain step, techniques are combined, the most promising first. What decides in
the end is the arena of the lowered program: where that is above the budget, the goal is tightened.
Deciding what to recompute by costs follows Jain et al., "Checkmate", 2020 (arXiv 1910.02653).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush

from coexec.budget.finalists import NEAR, Runs, fastest, finalists
from coexec.budget.refusal import NOTHING, refusal
from coexec.budget.settings import (
    Lower,
    MemoryPlan,
    Setting,
    beside,
    step_problem,
)
from coexec.budget.techniques import (
    TECHNIQUES,
    Offer,
    Question,
    Technique,
    not_worth,
)
from coexec.budget.variants import NEVER_US, ROUGH, Found, Known, Variant, spared, uses
from coexec.memory.build_problem import Measure
from coexec.memory.choose import tightened

ROUNDS = 5
"""Times that the goal is tightened if the compiled program is above the budget."""
CLOSE = 1.03
"""Times the plain step: what is as fast is good enough, and nothing is combined."""
COMBINED, DEEPEST = 4, 3
"""So many combinations are planned at each depth, and so many techniques are combined at most."""
DESPERATE, MORE = 3, 1.1
"""So many combinations are planned that promise nothing but a low peak, up to so many times the
lowest: together techniques may save more than each alone."""
FACTORS = (1.0, 1.03, 1.1, 1.25)
"""Times the lowest peak: budgets for which a plan is sought."""
TRIED = 3
"""Variants that are lowered to find the least that can be reached, if nothing fits."""
WORTH = 0.95
"""Times the exact step: what loses precision must be faster than that."""


def plan_memory(
    question: Question,
    budget: int,
    lower: Lower,
    cost_us: Measure,
    techniques: Sequence[Technique] = TECHNIQUES,
    known: Known | None = None,
    runs: Callable[[], Runs] | None = None,
) -> MemoryPlan:
    """The fastest setting whose programs take at most ``budget`` bytes.

    ``known`` is what was found out about the same question for another budget, and learns. Of those
    that are predicted to be about as fast, ``runs`` decide, if there are some; they are asked for
    once the plain step was lowered.

    Raises:
        MemoryBudgetError: none does; with the least that one would take, and what stands in the
            way.
    """
    return _Search(question, budget, lower, cost_us, techniques, known).run(runs)


class _Search:
    """``known`` is what was found out about the same question for another budget.

    ``any_that_fits`` stops at the first plan instead of the fastest.
    """

    def __init__(
        self,
        question: Question,
        budget: int,
        lower: Lower,
        cost_us: Measure,
        techniques: Sequence[Technique],
        known: Known | None = None,
        *,
        any_that_fits: bool = False,
    ) -> None:
        self.question = question
        self.budget = budget
        self.lower = lower
        self.cost_us = cost_us
        self.refused: dict[str, str] = {}
        self.usable = self._usable(techniques)
        self.known = Known() if known is None else known
        self.any_that_fits = any_that_fits
        self.found: list[Found] = []
        self.made: dict[Variant, None] = {}

    def run(self, runs: Callable[[], Runs] | None) -> MemoryPlan:
        """The plan, by times of runs where there are some."""
        best = self.found_one()
        if best is None:
            found, least = self._smallest()
            raise refusal(self.question, self.budget, found, least, self.refused)
        plain = best.variant.chain()[0]
        ran: dict[str, float] = {}
        times = runs() if runs is not None and best.peak != plain.peak else None
        if times is not None and times.may_decide(best.setting):
            forms = self._finalists(best)
            best, ran = fastest(forms, times) if len(forms) > 1 else (best, ran)
        return MemoryPlan(
            best.setting,
            self.budget,
            best.peak,
            plain.peak,
            best.step_us / 1e3,
            plain.step_us / 1e3,
            tuple(uses(best)),
            self.refused,
            ran,
        )

    def _finalists(self, best: Found) -> list[Found]:
        """The best and others that may be as fast; those that round only if the best does."""
        near = NEAR * best.step_us
        fitted = {each.variant for each in self.found}
        for variant in [each for each in self.made if each not in fitted]:
            if self.known.promise(variant, self.budget) <= near:
                self.found.append(self._fit(variant, self.budget))
        fitting = [each for each in self.found if each.peak <= self.budget]
        others = [
            each
            for each in fitting
            if each is not best and each.step_us <= near
            if each.variant.exact or not best.variant.exact
        ]
        return finalists([best, *(each for each in others if each.step_us >= best.step_us)])

    def found_one(self) -> Found | None:
        """The fastest setting found that fits; else the lowest there is, if that fits."""
        best = self.best()
        if best is None and min(each.least for each in self.made) <= self.budget:
            lowest = self.lowest()
            best = lowest if lowest.peak <= self.budget else None
        return best

    def best(self) -> Found | None:
        """The fastest setting that fits, if any was found."""
        plain = self._variant(Offer(self.question.recipe, ""))
        if plain.peak <= self.budget:
            return _as_it_is(plain)
        self._try(plain, self._singles(plain))
        if self._best() is None:
            singles = self._singles(plain, last_resorts=True)
            self._try(plain, singles)
            if self._best() is None:
                self._combine(plain, singles, desperate=True)
        return self._best()

    def _try(self, plain: Variant, singles: Sequence[Variant]) -> None:
        """Fit techniques alone, then combined, until one is nearly as fast as the plain step."""
        self._fit_all([plain, *singles])
        self._combine(plain, singles)

    def _combine(
        self, plain: Variant, singles: Sequence[Variant], *, desperate: bool = False
    ) -> None:
        level = singles
        for _ in range(1, DEEPEST):
            if self._settled(CLOSE * plain.step_us):
                break
            level = self._combined(plain, singles, level, desperate)

    def _usable(self, techniques: Sequence[Technique]) -> list[Technique]:
        found = []
        for technique in techniques:
            if not (technique.exact or self.question.lossy):
                continue
            reason = technique.refusal(self.question)
            if reason:
                self.refused[technique.name] = reason
            else:
                found.append(technique)
        return found

    def _singles(self, plain: Variant, *, last_resorts: bool = False) -> list[Variant]:
        """Each technique alone, as strong as need be; what changes nothing is left out."""
        found = []
        for technique in self.usable:
            changed, reason = [], NOTHING
            for offer in technique.offers(self.question, plain.offer.recipe):
                if offer.last_resort and not last_resorts:
                    break
                if slow := not_worth(self.question, plain.problem, offer.recipe):
                    reason = slow
                    break
                if self._is_too_little(plain, offer, technique):
                    continue
                variant = self._variant(offer, technique, plain)
                changed += [variant] if _differs(variant, plain) else []
                if variant.peak <= self.budget:
                    break  # what is stronger costs more
            if not changed:
                self.refused[technique.name] = reason
            found += changed
        return found

    def _is_too_little(self, plain: Variant, offer: Offer, technique: Technique) -> bool:
        """Whether smaller parts of the batch are to be looked at instead.

        What no plan of the whole batch goes below is shared out at best.
        """
        count = offer.recipe.micro_batches
        strongest = technique.offers(self.question, plain.offer.recipe)[-1]
        least = plain.fixed + (plain.least - plain.fixed) / count
        return count > plain.count and offer != strongest and least > self.budget

    def _combined(
        self,
        plain: Variant,
        singles: Sequence[Variant],
        level: Sequence[Variant],
        desperate: bool,
    ) -> list[Variant]:
        """One technique more on each variant, the most promising first; each is fitted at once.

        Making one takes long: none is made that promises no more than what was found by then, and
        only in a ``desperate`` search one that promises nothing.
        """
        made: list[Variant] = []
        ranked = self._ranked(plain, singles, level)
        if desperate:
            lowest = min(map(self._paper_peak, self.known.variants.values()))
            lower = [each for each in ranked if each[0][1] < MORE * lowest]
            ranked = sorted(lower, key=lambda each: each[0][1])[:DESPERATE]
        for (promise, peak), before, technique, offer in ranked:
            if len(made) == COMBINED or self._settled(promise):
                break
            hopeless = promise >= NEVER_US or peak > ROUGH * self.budget
            if hopeless and not desperate:
                continue
            made.append(self._variant(offer, technique, before))
            self._fit_all(made[-1:])
        return made

    def _ranked(
        self, plain: Variant, singles: Sequence[Variant], level: Sequence[Variant]
    ) -> list[tuple[tuple[float, float], Variant, Technique, Offer]]:
        """Techniques on top of variants: promised time and least peak by what each gives alone."""
        ranked: list[tuple[tuple[float, float], Variant, Technique, Offer]] = []
        best = self._best()
        for variant in level:
            for single in singles:
                offer = self._on_top(variant, single)
                if offer is None:
                    continue
                assert single.technique is not None
                saved = plain.peak - single.peak
                longer = single.step_us - plain.step_us
                if best is not None and best.step_us <= variant.step_us + longer:
                    continue
                goal = self.budget + max(saved, 0)
                promise = min(self.known.hope(variant, goal) + longer, NEVER_US)
                if best is None or promise < best.step_us:
                    less = self._paper_peak(plain) - self._paper_peak(single)
                    peak = self._paper_peak(variant) - less
                    ranked.append(((promise, peak), variant, single.technique, offer))
        return sorted(ranked, key=lambda each: each[0])

    def _on_top(self, variant: Variant, single: Variant) -> Offer | None:
        """What a technique as set in ``single`` makes of a variant of techniques before it."""
        used = [each.technique for each in variant.chain() if each.technique is not None]
        technique = single.technique
        assert technique is not None
        later = self.usable.index(technique) > max(map(self.usable.index, used), default=-1)
        if not later or any(each.changes == technique.changes for each in used):
            return None
        offers = technique.offers(self.question, variant.offer.recipe)
        return next((offer for offer in offers if offer.detail == single.offer.detail), None)

    def _variant(
        self, offer: Offer, technique: Technique | None = None, before: Variant | None = None
    ) -> Variant:
        names = () if technique is None else ((technique.name, offer.detail),)
        key = (*(before.key if before else ()), *names)
        known = self.known.variants
        if key not in known:
            lowered = self.lower(Setting(offer.recipe))
            problem = step_problem(lowered, self.cost_us)
            if before is not None and offer.recipe.workspace != before.offer.recipe.workspace:
                problem = spared(problem, before.problem)
            parts = (offer, lowered.peak_bytes, problem, beside(lowered), key)
            known[key] = Variant(*parts, technique, before)
        self.made[known[key]] = None
        return known[key]

    def _fit_all(self, variants: Iterable[Variant]) -> None:
        """In order of what they promise: the first that keeps its promise is the fastest.

        No step is faster than with nothing recomputed: until that counts, nothing is reckoned, and
        only roughly until that counts.
        """
        promises = (self.known.hope, self.known.promise)
        queue = [(each.step_us, number, 0, each) for number, each in enumerate(variants)]
        heapify(queue)
        while queue:
            promised_us, number, reckoned, variant = heappop(queue)
            if self._settled(promised_us):
                break
            if reckoned == len(promises):
                self.found.append(self._fit(variant, self.budget))
                continue
            promise = promises[reckoned](variant, self.budget)
            if promise < NEVER_US or not reckoned:
                heappush(queue, (promise, number, reckoned + 1, variant))

    def _settled(self, promised_us: float) -> bool:
        """Whether no step is looked for any more that takes so long at best."""
        best = self._best()
        return best is not None and (self.any_that_fits or best.step_us <= promised_us)

    def _best(self) -> Found | None:
        """The fastest that fits; one that loses precision only if that is worth it."""
        fitting = [each for each in self.found if each.peak <= self.budget]
        exact = [each for each in fitting if each.variant.exact]
        fastest = min(fitting, key=lambda each: each.step_us, default=None)
        gentle = min(exact, key=lambda each: each.step_us, default=None)
        if fastest is None or gentle is None:
            return fastest
        return fastest if fastest.step_us < WORTH * gentle.step_us else gentle

    def _fit(self, variant: Variant, budget: int) -> Found:
        """Recompute as little as the lowered program allows."""
        goal = budget - variant.fixed
        choice = self.known.chosen(variant, goal)
        lowest: Found | None = None
        for _ in range(ROUNDS):
            setting = Setting(variant.offer.recipe, choice.names(variant.problem))
            step_us = variant.step_us + choice.extra_us * variant.count
            found = Found(setting, variant, self._peak(variant, setting), step_us)
            if lowest is None or found.peak < lowest.peak:
                lowest = found
            if found.peak <= budget or choice.peak > goal:
                break
            goal = min(goal, choice.peak) - (found.peak - budget)
            choice = tightened(variant.problem, choice, goal)
        assert lowest is not None
        return lowest

    def _peak(self, variant: Variant, setting: Setting) -> int:
        """What the lowered programs take."""
        if not setting.recompute:
            return variant.peak
        key = (variant.key, setting.recompute)
        if key not in self.known.peaks:
            self.known.peaks[key] = self.lower(setting).peak_bytes
        return self.known.peaks[key]

    def lowest(self) -> Found:
        """The lowest peak that variants of this search are brought to, whatever the budget is."""
        ranked = sorted(self.made, key=lambda each: self.known.lowest(each).peak + each.fixed)
        found = [*self.found, *(self._fit(each, 0) for each in ranked[:TRIED])]
        return min([*found, *map(_as_it_is, self.made)], key=lambda each: each.peak)

    def _smallest(self) -> tuple[Found, int]:
        """A plan of about the lowest peak, and the least budget that there is a plan for.

        Another search with that budget finds a plan as well: it goes the way of this one first.
        """
        lowest = self.lowest()
        for factor in FACTORS:
            budget = int(lowest.peak * factor)
            parts = (self.question, budget, self.lower, self.cost_us, self.usable)
            again = _Search(*parts, self.known, any_that_fits=True).found_one()
            if again is not None:
                return again, budget
        plain = self.known.variants[()]
        return _as_it_is(plain), plain.peak

    def _paper_peak(self, variant: Variant) -> int:
        """The least peak that a variant promises."""
        return self.known.quick(variant, self.budget - variant.fixed).peak + variant.fixed


def _as_it_is(variant: Variant) -> Found:
    """A variant with nothing recomputed."""
    return Found(Setting(variant.offer.recipe), variant, variant.peak, variant.step_us)


def _differs(variant: Variant, plain: Variant) -> bool:
    """Whether a step is another one than the plain one."""
    same = variant.peak == plain.peak and variant.problem.nodes == plain.problem.nodes
    return not same
