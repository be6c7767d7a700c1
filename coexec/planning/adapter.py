"""Which plan to follow next, what is prepared meanwhile, and which processors are still there.

Plans that may be wanted are compiled before they are: each processor alone, and what was followed
before. The times of runs decide among them (:mod:`coexec.planning.trials`), at once when something
has changed. Another plan, for processors that take as long as they do now, is made and compiled in
the background afterwards and has to prove itself in the same way. Runs beside that count for
nothing: it takes time of the same cores, and begins when a situation has lasted as long as it took
the last time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import median
from typing import Generic, TypeVar

import numpy as np

from coexec.base.errors import ProcessorError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor, Runner
from coexec.core.timeline import timeline_of
from coexec.planning.trials import HOPELESS, LEAST, News, Trials
from coexec.planning.workshop import Job, Workshop
from coexec.runtime.adapt import AdaptOptions, are_apart, factors_of

log = logging.getLogger(__name__)
Prepared = TypeVar("Prepared")
Factors = Mapping[str, float]
"""How many times longer than first predicted processors take."""


@dataclass(frozen=True)
class Proposal:
    """A plan with the microseconds that it predicts each processor to be busy.

    ``alternatives`` are plans that may be better when processors take longer than predicted; some
    are made for that, for processors that take ``factors`` times as long.
    """

    plan: Plan
    busy_us: Mapping[str, float]
    alternatives: tuple[Proposal, ...] = ()
    factors: Factors = field(default_factory=dict)


Planner = Callable[[Factors], Proposal]
"""A plan for the processors named, each so many times slower than first predicted."""


@dataclass(frozen=True)
class Adaptation:
    """What happened before run ``step``.

    ``kind`` is ``noticed`` (runs do not take what they did), ``replanned`` (another plan is
    followed), ``kept`` (the same is still the best), ``lost`` or ``failed``. ``factors`` are
    measured over first predicted times by processor.
    """

    step: int
    kind: str
    text: str
    factors: Factors


@dataclass
class Option(Generic[Prepared]):
    """A plan that can be followed at once; ``factors`` are those that it was made for.

    ``known`` are those of the situation in which its time is known.
    """

    proposal: Proposal
    prepared: Prepared
    factors: Factors
    known: Factors = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        return self.proposal.plan

    def slowest_us(self, factors: Factors) -> float:
        """Microseconds of the busiest processor, if they take ``factors`` times as long."""
        busy = self.proposal.busy_us.items()
        times = (us * factors.get(n, 1.0) / self.factors.get(n, 1.0) for n, us in busy)
        return max(times, default=0.0)


class Adapter(Generic[Prepared]):
    """Decides which plan to follow, has others prepared in the background, knows who is there."""

    def __init__(
        self,
        processors: Mapping[str, Processor],
        planner: Planner,
        first: tuple[Proposal, Prepared],
        prepare: Callable[[Plan, Mapping[str, Processor]], Prepared],
        how: AdaptOptions,
    ) -> None:
        proposal, prepared = first
        self.processors = dict(processors)
        self.planner = planner
        self.prepare = prepare
        self.how = how
        self.events: list[Adaptation] = []
        self.known: dict[str, float] = dict.fromkeys(proposal.busy_us, 1.0)
        timeline = timeline_of(next(iter(processors.values())))
        self._workshop: Workshop[Option[Prepared]] = Workshop(at_once=timeline is not None)
        # The plan that is being compiled there.
        self._making: Plan | None = None
        self._followed = self._best = 0
        self._job: Job[Option[Prepared]] | None = None
        self._asked: Factors | None = None
        self._first_busy: list[Factors] = []
        self._slow_busy: list[Factors] = []
        self._planned: list[Factors] = []
        # Of the runs beside the last job, and of those since something changed.
        self._beside_us, self._since_us = 0.0, inf
        self._begin(Option(proposal, prepared, dict(self.known)))
        if others := _different(proposal):
            self._job = lambda: self._made(others, dict(self.known), self.processors)

    def trace(self) -> Trace | None:
        """For the next run, if it should be known of it how long processors were busy."""
        if self._workshop.busy or self._job is not None:
            return None
        wanted = len(self._first_busy) < LEAST or self.trials.suspicious
        return Trace() if wanted else None

    @property
    def is_steady(self) -> bool:
        """Whether nothing is prepared or tried, nor waits for that."""
        busy = self._workshop.busy or self._job is not None or self._asked is not None
        return not busy and self.trials.quiet and len(self._first_busy) == LEAST

    def watch(self, step: int, us: float, busy_us: Mapping[str, float] | None) -> None:
        """Count the run before ``step``, by the plan that was taken over last.

        ``busy_us``: of each processor in it, if that is known.
        """
        if self._workshop.busy:
            self._beside_us += us
            return
        if self._job is not None:
            self._start(self._job)
            self._job = None
            return
        self._since_us += us
        if len(self._first_busy) < LEAST:
            # These do not count as runs: looking so closely takes time, too.
            self._first_busy += [] if busy_us is None else [busy_us]
            if len(self._first_busy) == LEAST:
                self._ask(self._first_busy)
            return
        self._slow_busy = [*self._slow_busy, busy_us or {}] if self.trials.suspicious else []
        self.options[self.trials.now].known = dict(self.known)
        news = self.trials.observe(us)
        if news is News.CHANGED:
            self._changed(step)
        elif news is not News.NOTHING:
            self._decided(step, news)
        elif self.trials.quiet:
            self._plan_if_asked()

    def take_over(self, step: int, current: Prepared, wait: bool = False) -> Prepared | None:
        """What was prepared for the plan of the next run, if that is not the one of ``current``.

        ``wait`` for what is being prepared.
        """
        if self._workshop.busy and (wait or self._workshop.done):
            self._collect(step)
        before = self._followed
        self.options[before].prepared = current
        self._followed = self.trials.now
        if self.trials.quiet:
            self._let_go()
        return None if self._followed == before else self.options[self._followed].prepared

    def lose(self, error: Exception, step: int) -> tuple[str, ...]:
        """Names of processors that do not answer any more; they are not asked again."""
        lost = tuple(name for name, each in self.processors.items() if not answers(each))
        for name in lost:
            self._note(step, "lost", f"{name} is lost: {error}")
            del self.processors[name]
            self.known.pop(name, None)
        return lost

    def without_lost(self) -> Prepared:
        """What is prepared for the processors that are left: at once, if something is ready.

        Raises:
            ProcessorError: none of those that were planned for is.
        """
        if not self.known:
            raise ProcessorError("all processors that were planned for are lost")
        self._take_what_is_made()
        numbers = [
            number
            for number, option in self.options.items()
            if number != self._followed and set(option.plan.named) <= self.processors.keys()
        ]
        if numbers:
            self._begin(self.options[min(numbers, key=self._guess)])
            if len(self.known) > 1:
                self._job = self._replanning(dict(self.known))
        else:
            proposal = self.planner(self.known)
            self._begin(next(self._made([proposal], self.known, self.processors)))
        return self.options[0].prepared

    def _take_what_is_made(self) -> None:
        """Plans from the background; of what is under way there, one that can be followed."""
        if self._workshop.busy:
            making = self._making
            wanted = making is not None and set(making.named) <= self.processors.keys()
            made, _ = self._workshop.collect(wait=wanted)
            self.options.update({self.trials.add(): option for option in made})

    def _begin(self, option: Option[Prepared]) -> None:
        """Follow a plan; there is no other one yet."""
        self.trials, self.options = Trials(), {0: option}
        self._followed = self._best = 0
        self._job = self._asked = None
        self._first_busy, self._slow_busy = [], []
        alternatives = option.proposal.alternatives
        others = [{**option.factors, **each.factors} for each in alternatives if each.factors]
        self._planned = [option.factors, *others]

    def _ask(self, busy_us: Sequence[Factors]) -> None:
        """Have another plan made, in time, for what processors took in these runs."""
        option = self.options[self._followed]
        names = {name for each in busy_us for name in each}
        middle = {name: median(each.get(name, 0.0) for each in busy_us) for name in names}
        for name, factor in factors_of(middle, option.proposal.busy_us).items():
            self.known[name] = option.factors.get(name, 1.0) * factor
        self._asked = dict(self.known)

    def _changed(self, step: int) -> None:
        """Try what is ready in the new situation, the most promising plan first."""
        self._ask([each for each in self._slow_busy if each])
        self._slow_busy, self._since_us = [], 0.0
        self._note(step, "noticed", f"runs take {self.trials.change:.2f} times what they did")
        self._try(number for number in self.options if number != self.trials.chosen)
        if self.trials.quiet:
            self._plan_if_asked()

    def _try(self, numbers: Iterable[int]) -> None:
        """Try plans, the most promising one first and none that is hopeless."""
        guesses = {number: self._guess(number) for number in numbers}
        limit = HOPELESS * self.trials.usual_us
        hopeful = [number for number, us in guesses.items() if us < limit or limit == inf]
        known = {number: us for number, us in guesses.items() if us < inf}
        self.trials.begin(sorted(hopeful, key=lambda number: guesses[number]), known)

    def _guess(self, number: int) -> float:
        """Microseconds of a run by a plan now, if its busiest processor decides.

        By its last runs; of a plan that was never run, by those of the one that is followed.
        """
        option, last = self.options[number], self.trials.times[number].last_us
        like, known = option, option.known
        if last == inf:
            like, known, last = self.options[self.trials.chosen], self.known, self.trials.usual_us
        before = like.slowest_us(known)
        return last * option.slowest_us(self.known) / before if before else last

    def _decided(self, step: int, news: News) -> None:
        chosen = self.trials.chosen
        changed, self._best = chosen != self._best, chosen
        if changed or news is News.DECIDED:
            kind = "replanned" if changed else "kept"
            ms = self.trials.usual_us / 1e3
            text = f"{_words(self.options[chosen].plan, self.known)}, {ms:.2f} ms a run"
            self._note(step, kind, text)
        self._plan_if_asked()

    def _plan_if_asked(self) -> None:
        """Try plans that were made for what was asked about, if there are some; else make one."""
        asked = self._asked
        if asked is None:
            return
        if any(self._alike(asked, each) for each in self._planned):
            self._asked, times = None, self.trials.times
            ready = [n for n in self.options if times[n].last_us == inf]
            self._try(n for n in ready if self._alike(asked, self.options[n].factors))
        elif self._since_us >= self._beside_us:
            self._planned.append(asked)
            self._asked = None
            self._start(self._replanning(asked))

    def _start(self, job: Job[Option[Prepared]]) -> None:
        self._beside_us = 0.0
        self._workshop.start(job)

    def _alike(self, one: Factors, other: Factors) -> bool:
        """Whether processors are as fast beside each other: a plan for one is one for the other."""
        ratios = {name: factor / other.get(name, factor) for name, factor in one.items()}
        return not are_apart(ratios, ratios, self.how.tolerance)

    def _replanning(self, factors: Factors) -> Job[Option[Prepared]]:
        """The work of making another plan; nothing comes of it if that is known already."""
        known = [option.plan for option in self.options.values()]
        processors = dict(self.processors)

        def work() -> Iterator[Option[Prepared]]:
            proposal = self.planner(factors)
            if not any(_same(proposal.plan, plan) for plan in known):
                yield from self._made([proposal], factors, processors)

        return work

    def _made(
        self,
        proposals: Sequence[Proposal],
        factors: Factors,
        processors: Mapping[str, Processor],
    ) -> Iterator[Option[Prepared]]:
        """Plans compiled, each for its own processors and those that are in no plan."""
        planned = [*factors]
        for proposal in proposals:
            plan = proposal.plan
            if not set(plan.named) <= self.processors.keys():
                continue  # one of them was lost meanwhile
            self._making = plan
            there = {n: p for n, p in processors.items() if n in plan.named or n not in planned}
            prepared = self.prepare(plan, there)
            yield Option(proposal, prepared, {**factors, **proposal.factors})
        self._making = None

    def _collect(self, step: int) -> None:
        """Have what was prepared in the background tried."""
        made, error = self._workshop.collect()
        if error is not None:
            # The runs go on as they are.
            self._note(step, "failed", f"no other plan: {error}")
        numbers = {self.trials.add(): option for option in made}
        self.options.update(numbers)
        self._try(n for n, option in numbers.items() if self._is_for_now(option))

    def _is_for_now(self, option: Option[Prepared]) -> bool:
        """Whether a plan is not one for another situation."""
        return not option.proposal.factors or self._alike(self.known, option.factors)

    def _let_go(self) -> None:
        """Keep so many other plans ready as are wanted: those that were the fastest."""
        times = self.trials.times
        others = [number for number in self.options if number != self.trials.chosen]
        for number in sorted(others, key=lambda n: times[n].hope_us)[self.how.ready :]:
            self.trials.drop(number)
            dropped = self.options.pop(number)
            self._planned = [each for each in self._planned if each != dropped.factors]

    def _note(self, step: int, kind: str, text: str) -> None:
        self.events.append(Adaptation(step, kind, text, dict(self.known)))
        log.warning("before step %d: %s: %s", step, kind, text)


def answers(runner: Runner) -> bool:
    """Whether a processor still takes bytes and gives them back."""
    sent = np.arange(64, dtype=np.uint8)
    found = np.zeros_like(sent)
    try:
        buffer = runner.alloc(sent.nbytes)
        runner.wait(runner.copy(buffer, sent, ()))
        runner.wait(runner.copy(found, buffer, ()))
    except Exception as error:  # noqa: BLE001  drivers raise what they like
        log.warning("%s does not answer: %s", runner.describe().name, error)
        return False
    return bool((sent == found).all())


def _same(one: Plan, other: Plan) -> bool:
    """Whether two plans put everything in the same places."""
    return (one.processors, one.splits, one.batch) == (other.processors, other.splits, other.batch)


def _different(proposal: Proposal) -> list[Proposal]:
    """Its alternatives, those that put everything in the same places once."""
    found = [proposal]
    for each in proposal.alternatives:
        if not any(_same(each.plan, known.plan) for known in found):
            found.append(each)
    return found[1:]


def _words(plan: Plan, factors: Mapping[str, float]) -> str:
    shares = ", ".join(f"{count} samples on {name}" for name, count in plan.batch.items())
    times = ", ".join(f"{name} takes {factor:.2f} times" for name, factor in factors.items())
    return f"{plan.policy or 'plan'}: {shares or ', '.join(plan.named)} ({times})"
