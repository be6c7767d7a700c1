"""When to plan again, what is prepared meanwhile, and which processors are still there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from coexec.base.errors import ProcessorError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor, Runner
from coexec.runtime.adapt import AdaptOptions, Drift, busy_us

log = logging.getLogger(__name__)
Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Proposal:
    """A plan with the microseconds that it predicts each processor to be busy."""

    plan: Plan
    busy_us: Mapping[str, float]


Planner = Callable[[Mapping[str, float]], Proposal]
"""A plan for the processors named, each so many times slower than first predicted."""


@dataclass(frozen=True)
class Adaptation:
    """What happened before run ``step``: ``kind`` is ``replanned``, ``kept``, ``lost``, ``failed``.

    ``factors`` are measured over first predicted times by processor.
    """

    step: int
    kind: str
    text: str
    factors: Mapping[str, float]


class Adapter(Generic[Prepared]):
    """Decides when to plan again, has it prepared in the background, and knows who is there."""

    def __init__(
        self,
        processors: Mapping[str, Processor],
        planner: Planner,
        proposal: Proposal,
        prepare: Callable[[Plan, Mapping[str, Processor]], Prepared],
        how: AdaptOptions,
    ) -> None:
        self.processors = dict(processors)
        self.planner = planner
        self.proposal = proposal
        self.prepare = prepare
        self.how = how
        self.events: list[Adaptation] = []
        self.drift = Drift(proposal.busy_us, how)
        self.factors = dict.fromkeys(proposal.busy_us, 1.0)
        self._background = ThreadPoolExecutor(1, "coexec planning")
        self._next: Future[tuple[Proposal, Prepared | None]] | None = None
        self._asked: dict[str, float] = {}

    def watch(self, trace: Trace, first: int) -> None:
        """Look at the events of a run, which are those of ``trace`` from ``first`` on."""
        busy = busy_us(trace.events[first:])
        if self.drift.observe(busy) and self._next is None:
            self._asked = self._now()
            self._next = self._background.submit(self._plan, self._asked, dict(self.processors))

    def take_over(self, step: int, wait: bool = False) -> Prepared | None:
        """What was prepared for another plan, once it is; ``wait`` for it if it is under way."""
        if self._next is None or not (wait or self._next.done()):
            return None
        future, self._next = self._next, None
        factors = self._asked
        try:
            proposal, prepared = future.result()
        except Exception as error:  # noqa: BLE001  the runs go on as they are, and it is said
            self._note(Adaptation(step, "failed", f"no other plan: {error}", factors))
            self._follow(Proposal(self.proposal.plan, self._measured()), self._now())
            return None
        kind = "kept" if prepared is None else "replanned"
        self._note(Adaptation(step, kind, _words(proposal.plan, factors), factors))
        self._follow(proposal, factors)
        return prepared

    def lose(self, error: Exception, step: int) -> tuple[str, ...]:
        """Names of processors that do not answer any more; they are not asked again."""
        lost = tuple(name for name, each in self.processors.items() if not answers(each))
        for name in lost:
            self._note(Adaptation(step, "lost", f"{name} is lost: {error}", self._now()))
            del self.processors[name]
            self.factors.pop(name, None)
        if lost and self._next is not None:
            # It may be a plan for who is lost. A result that nobody wants is dropped.
            self._next.cancel()
            self._next = None
        return lost

    def without_lost(self) -> Prepared:
        """What is prepared for the processors that are left.

        Raises:
            ProcessorError: none of those that were planned for is.
        """
        factors = {name: factor for name, factor in self.factors.items() if name in self.processors}
        if not factors:
            raise ProcessorError("all processors that were planned for are lost")
        proposal = self.planner(factors)
        prepared = self.prepare(proposal.plan, self.processors)
        self._follow(proposal, factors)
        return prepared

    def _plan(
        self, factors: Mapping[str, float], processors: Mapping[str, Processor]
    ) -> tuple[Proposal, Prepared | None]:
        proposal = self.planner(factors)
        if _same(proposal.plan, self.proposal.plan):
            return proposal, None
        return proposal, self.prepare(proposal.plan, processors)

    def _follow(self, proposal: Proposal, factors: Mapping[str, float]) -> None:
        self.proposal = proposal
        self.factors = dict(factors)
        self.drift = Drift(proposal.busy_us, self.how)

    def _now(self) -> dict[str, float]:
        """Factors against the first predictions: those of this plan, times what came on top."""
        return {n: factor * self.drift.factors.get(n, 1.0) for n, factor in self.factors.items()}

    def _measured(self) -> dict[str, float]:
        """What each processor takes now, as a prediction."""
        predicted = self.proposal.busy_us
        return {name: us * self.drift.factors.get(name, 1.0) for name, us in predicted.items()}

    def _note(self, event: Adaptation) -> None:
        self.events.append(event)
        log.warning("before step %d: %s: %s", event.step, event.kind, event.text)


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
