"""Which plan to follow next, what is prepared meanwhile, and which processors are still there.

Plans that may be wanted are compiled before they are: each processor alone, and what was followed
before. The times of runs decide among them (:mod:`coexec.planning.trials`), at once when something
has changed. Another plan, for processors that take as long as they do now, is made and compiled in
the background afterwards and has to prove itself in the same way. Runs beside that count for
nothing: it takes time of the same cores.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from coexec.runtime.adapt import AdaptOptions, are_apart, factors_of

log = logging.getLogger(__name__)
Prepared = TypeVar("Prepared")
Factors = Mapping[str, float]
"""How many times longer than first predicted processors take."""


@dataclass(frozen=True)
class Proposal:
    """A plan with the microseconds that it predicts each processor to be busy.

    ``alternatives`` are plans that may be better when processors take longer than predicted.
    """

    plan: Plan
    busy_us: Mapping[str, float]
    alternatives: tuple[Proposal, ...] = ()


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
        self._background = ThreadPoolExecutor(1, "coexec planning")
        self._followed = self._best = 0
        self._next: Future[list[Option[Prepared]]] | None = None
        self._job: Callable[[], list[Option[Prepared]]] | None = None
        self._asked: Factors | None = None
        self._first_busy: list[Factors] = []
        self._slow_busy: list[Factors] = []
        self._planned: list[Factors] = []
        self._begin(Option(proposal, prepared, dict(self.known)))
        others = [each for each in proposal.alternatives if not _same(each.plan, proposal.plan)]
        if others:
            self._job = lambda: self._made(others, self.known, self.processors)

    def trace(self) -> Trace | None:
        """For the next run, if it should be known of it how long processors were busy."""
        if self._next is not None or self._job is not None:
            return None
        wanted = len(self._first_busy) < LEAST or self.trials.suspicious
        return Trace() if wanted else None

    @property
    def is_steady(self) -> bool:
        """Whether nothing is prepared or tried, nor waits for that."""
        busy = self._next is not None or self._job is not None or self._asked is not None
        return not busy and self.trials.quiet and len(self._first_busy) == LEAST

    def watch(self, step: int, us: float, busy_us: Mapping[str, float] | None) -> None:
        """Count the run before ``step``, by the plan that was taken over last.

        ``busy_us``: of each processor in it, if that is known.
        """
        if self._next is not None:
            return
        if self._job is not None:
            self._start(self._job)
            return
        if len(self._first_busy) < LEAST:
            # These do not count as runs: looking so closely takes time, too.
            self._first_busy += [] if busy_us is None else [busy_us]
            if len(self._first_busy) == LEAST:
                self._ask(self._first_busy)
            return
        self._slow_busy = [*self._slow_busy, busy_us or {}] if self.trials.suspicious else []
        number = self.trials.now
        news = self.trials.observe(us)
        self.options[number].known = dict(self.known)
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
        if self._next is not None and (wait or self._next.done()):
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
        if lost and self._next is not None:
            # It may be a plan for who is lost. A result that nobody wants is dropped.
            self._next.cancel()
            self._next = None
        return lost

    def without_lost(self) -> Prepared:
        """What is prepared for the processors that are left: at once, if something is ready.

        Raises:
            ProcessorError: none of those that were planned for is.
        """
        if not self.known:
            raise ProcessorError("all processors that were planned for are lost")
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
            (option,) = self._made([proposal], self.known, self.processors)
            self._begin(option)
        return self.options[0].prepared

    def _begin(self, option: Option[Prepared]) -> None:
        """Follow a plan; there is no other one yet."""
        self.trials = Trials()
        self.options = {0: option}
        self._followed = self._best = 0
        self._next = self._job = self._asked = None
        self._first_busy, self._slow_busy = [], []
        self._planned = [option.factors]

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
        self._slow_busy = []
        self._note(step, "noticed", f"runs take {self.trials.change:.2f} times what they did")
        others = [number for number in self.options if number != self.trials.chosen]
        hopeless = HOPELESS * self.trials.usual_us
        guesses = {number: self._guess(number) for number in others}
        tried = [n for n in others if guesses[n] < hopeless or guesses[n] == inf]
        self.trials.begin(sorted(tried, key=lambda number: guesses[number]))
        if self.trials.quiet:
            self._plan_if_asked()

    def _guess(self, number: int) -> float:
        """Microseconds of a run by a plan now, if its slowest processor decides."""
        option, last = self.options[number], self.trials.times[number].last_us
        named = [name for name in option.plan.named if name in self.known]
        return last * max((self.known[n] / option.known.get(n, 1.0) for n in named), default=1.0)

    def _decided(self, step: int, news: News) -> None:
        chosen = self.trials.chosen
        changed = chosen != self._best
        self._best = chosen
        if changed or news is News.DECIDED:
            kind = "replanned" if changed else "kept"
            ms = self.trials.usual_us / 1e3
            text = f"{_words(self.options[chosen].plan, self.known)}, {ms:.2f} ms a run"
            self._note(step, kind, text)
        self._plan_if_asked()

    def _plan_if_asked(self) -> None:
        asked, self._asked = self._asked, None
        if asked is None or any(self._alike(asked, each) for each in self._planned):
            return
        self._planned.append(asked)
        self._start(self._replanning(asked))

    def _start(self, job: Callable[[], list[Option[Prepared]]]) -> None:
        """Do it in the background; in virtual time, which two threads cannot share, at once."""
        self._job = None
        if timeline_of(next(iter(self.processors.values()))) is None:
            self._next = self._background.submit(job)
            return
        self._next = Future()
        try:
            self._next.set_result(job())
        except Exception as error:  # noqa: BLE001  told when it is collected
            self._next.set_exception(error)

    def _alike(self, one: Factors, other: Factors) -> bool:
        """Whether processors are as fast beside each other: a plan for one is one for the other."""
        ratios = {name: factor / other.get(name, factor) for name, factor in one.items()}
        return not are_apart(ratios, ratios, self.how.tolerance)

    def _replanning(self, factors: Factors) -> Callable[[], list[Option[Prepared]]]:
        """The work of making another plan; nothing comes of it if that is known already."""
        known = [option.plan for option in self.options.values()]
        processors = dict(self.processors)

        def work() -> list[Option[Prepared]]:
            proposal = self.planner(factors)
            if any(_same(proposal.plan, plan) for plan in known):
                return []
            return self._made([proposal], factors, processors)

        return work

    def _made(
        self,
        proposals: Sequence[Proposal],
        factors: Factors,
        processors: Mapping[str, Processor],
    ) -> list[Option[Prepared]]:
        """Plans compiled, each for its own processors and those that are in no plan."""
        planned, made = [*factors], []
        for proposal in proposals:
            plan = proposal.plan
            there = {n: p for n, p in processors.items() if n in plan.named or n not in planned}
            made.append(Option(proposal, self.prepare(plan, there), dict(factors)))
        return made

    def _collect(self, step: int) -> None:
        """Have what was prepared in the background tried."""
        assert self._next is not None
        future, self._next = self._next, None
        try:
            made = future.result()
        except Exception as error:  # noqa: BLE001  the runs go on as they are, and it is said
            self._note(step, "failed", f"no other plan: {error}")
            return
        numbers = [self.trials.add() for _ in made]
        self.options.update(zip(numbers, made, strict=True))
        self.trials.begin(numbers)

    def _let_go(self) -> None:
        """Keep so many other plans ready as are wanted: those that were the fastest."""
        times = self.trials.times
        others = [number for number in self.options if number != self.trials.chosen]
        for number in sorted(others, key=lambda n: times[n].hope_us)[self.how.ready :]:
            self.trials.drop(number)
            del self.options[number]

    def _note(self, step: int, kind: str, text: str) -> None:
        self.events.append(Adaptation(step, kind, text, dict(self.known)))
        log.warning("before step %d: %s: %s", step, kind, text)


def clock_of(processors: Mapping[str, Processor]) -> Callable[[], float]:
    """Seconds by the clock that runs on these processors are timed with."""
    timeline = timeline_of(next(iter(processors.values())))
    return time.perf_counter if timeline is None else lambda: timeline.now_ns() * 1e-9


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


def _words(plan: Plan, factors: Mapping[str, float]) -> str:
    shares = ", ".join(f"{count} samples on {name}" for name, count in plan.batch.items())
    times = ", ".join(f"{name} takes {factor:.2f} times" for name, factor in factors.items())
    return f"{plan.policy or 'plan'}: {shares or ', '.join(plan.named)} ({times})"
