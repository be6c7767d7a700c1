"""Training and inference that follow what processors do: slower ones get less, lost ones nothing.

Runs are timed. When they take longer than usual, the other plans that are ready are tried by the
next runs, and the fastest is followed (:mod:`coexec.planning.adapter`); what is made in the
background is taken over between two runs. A run in which a processor fails is repeated on the
others. What happened is kept in ``adaptations``, logged, and shown. Which plan is followed depends
on measured times then: bit-exact repetition of a training needs a fixed plan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, Unpack

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError, ModelError, NonFiniteLoss, UsageError
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.timeline import clock_of
from coexec.core.types import Array
from coexec.planning.adapter import Adaptation, Adapter, Planner
from coexec.runtime.adapt import DEFAULT, AdaptOptions, busy_us
from coexec.session import Session
from coexec.steps.builder import Recipe
from coexec.steps.resident import ResidentPrograms
from coexec.training.trainer import Trainer, TrainerOptions

log = logging.getLogger(__name__)
Result = TypeVar("Result")
NOT_A_LOSS = (DataError, ModelError, NonFiniteLoss, UsageError)
"""What is wrong with data, model or arithmetic would be on any processor."""


class AdaptiveTrainer(Trainer):
    """A :class:`coexec.training.trainer.Trainer` that plans again while it runs; see the module.

    ``planner`` makes the first plan, too. A lost processor loses no step: the step is repeated on
    the others from the states as they were, or, if it took states with it, all steps since the last
    copy to the host are (their batches are kept).
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        processors: Mapping[str, Processor],
        planner: Planner,
        adapt: AdaptOptions = DEFAULT,
        planned: Sequence[str] = (),
        clock: Callable[[], float] | None = None,
        **options: Unpack[TrainerOptions],
    ) -> None:
        names = planned or [*processors]
        proposal = planner(dict.fromkeys(names, 1.0))
        super().__init__(model, recipe, processors, plan=proposal.plan, **options)
        if self.memory.steps is not None:
            # The budget is for one plan.
            adapt, proposal = replace(adapt, ready=0), replace(proposal, alternatives=())
        self._adapter: Adapter[ResidentPrograms] = Adapter(
            processors, planner, (proposal, self._programs), self._prepare, adapt
        )
        self._clock = clock or clock_of(processors.values())
        self._shapes: dict[str, Array] = {}
        self._kept: tuple[dict[str, Array], int] | None = None
        self._since: list[tuple[dict[str, Array], Array | None]] = []

    @property
    def adaptations(self) -> tuple[Adaptation, ...]:
        """What happened so far."""
        return tuple(self._adapter.events)

    def step(
        self,
        feeds: Mapping[str, Array],
        labels: Array | None = None,
        trace: Trace | None = None,
    ) -> float:
        """As :meth:`coexec.training.trainer.Trainer.step`, on the processors that are left."""
        self._shapes = {name: np.empty_like(array) for name, array in feeds.items()}
        self._surely(self._prepare_step)
        loss, us, busy = self._surely(
            lambda: _timed(
                lambda own: Trainer.step(self, feeds, labels, own),
                trace or self._adapter.trace(),
                self._clock,
            )
        )
        kept = None if labels is None else np.array(labels)
        self._since.append(({n: np.array(a) for n, a in feeds.items()}, kept))
        self._adapter.watch(self.steps, us, busy)
        return loss

    def load_state(self, state: Mapping[str, Array], steps: int) -> None:
        """As :meth:`coexec.training.trainer.Trainer.load_state`."""
        super().load_state(state, steps)
        self._kept, self._since = None, []

    @property
    def is_steady(self) -> bool:
        """Whether no other plan is prepared or tried, nor waits for that."""
        return self._adapter.is_steady

    def settle(self) -> None:
        """Wait for other plans, if some are being made; the next steps try them."""
        self._take_over(wait=True)

    def _take_over(self, *, wait: bool = False) -> None:
        prepared = self._adapter.take_over(self.steps, self._programs, wait)
        if prepared is not None:
            self.switch(prepared)

    def _prepare_step(self) -> None:
        """Take another plan over, and copy the states to the host when it is time."""
        self._take_over()
        if self._kept is None or len(self._since) >= self._adapter.how.keep_every:
            self._kept, self._since = (self.state(), self.steps), []

    def _surely(self, work: Callable[[], Result]) -> Result:
        """Do it, again as long as processors fail and others are left."""
        while True:
            try:
                return work()
            except NOT_A_LOSS:
                raise
            except Exception as error:
                if not self._adapter.lose(error, self.steps):
                    raise
                self._go_on_without()

    def _go_on_without(self) -> None:
        state = None if self.updating else self._readable()
        programs = self._adapter.without_lost()
        if state is not None:
            self.switch(programs, state)
            return
        while not self._repeated(programs):
            programs = self._adapter.without_lost()

    def _repeated(self, programs: ResidentPrograms) -> bool:
        """Repeat the steps since the last copy of the states; false if a processor is lost."""
        assert self._kept is not None
        kept, steps = self._kept
        self.switch(programs, {})
        super().load_state(kept, steps)
        try:
            for feeds, labels in self._since:
                super().step(feeds, labels)
        except NOT_A_LOSS:
            raise
        except Exception as error:
            if not self._adapter.lose(error, self.steps):
                raise
            return False
        return True

    def _readable(self) -> dict[str, Array] | None:
        """The states, if all of them can still be read: from who is there, or where they lie."""
        try:
            return self._with_scale(self._programs.outliving(self._adapter.processors.keys()))
        except Exception as error:  # noqa: BLE001  whatever a lost processor raises
            log.warning("states are lost with it (%s): repeating steps", error)
            return None

    def _prepare(self, plan: Plan, processors: Mapping[str, Processor]) -> ResidentPrograms:
        return self.prepare(self._shapes, plan, processors)


def adaptive(
    plain: Trainer, planner: Planner, planned: Sequence[str], adapt: AdaptOptions = DEFAULT
) -> AdaptiveTrainer:
    """A trainer as ``plain`` was before its first step that adapts to what ``planned`` do."""
    parts = (plain.model, plain.recipe, plain.processors, planner)
    return AdaptiveTrainer(*parts, adapt, planned, **plain.options())


class AdaptiveSession:
    """Runs a model as :class:`coexec.session.Session`, planning again while it does."""

    def __init__(
        self,
        model: ir.Model,
        processors: Mapping[str, Processor],
        planner: Planner,
        adapt: AdaptOptions = DEFAULT,
        planned: Sequence[str] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.model = model
        proposal = planner(dict.fromkeys(planned or [*processors], 1.0))
        self.session = Session(model, processors, follow=proposal.plan)
        self.runs = 0
        self._adapter: Adapter[Session] = Adapter(
            processors, planner, (proposal, self.session), self._prepare, adapt
        )
        self._clock = clock or clock_of(processors.values())

    @property
    def adaptations(self) -> tuple[Adaptation, ...]:
        """What happened so far."""
        return tuple(self._adapter.events)

    def run(self, feeds: Mapping[str, Array], trace: Trace | None = None) -> dict[str, Array]:
        """Outputs by name, as :meth:`coexec.session.Session.run`."""
        self._take_over()
        while True:
            own = trace or self._adapter.trace()
            try:
                outputs, us, busy = _timed(
                    lambda seen: self.session.run(feeds, trace=seen), own, self._clock
                )
            except NOT_A_LOSS:
                raise
            except Exception as error:
                if not self._adapter.lose(error, self.runs):
                    raise
                self.session = self._adapter.without_lost()
                continue
            self.runs += 1
            self._adapter.watch(self.runs, us, busy)
            return outputs

    @property
    def is_steady(self) -> bool:
        """Whether no other plan is prepared or tried, nor waits for that."""
        return self._adapter.is_steady

    def settle(self) -> None:
        """Wait for other plans, if some are being made; the next runs try them."""
        self._take_over(wait=True)

    def _take_over(self, *, wait: bool = False) -> None:
        self.session = self._adapter.take_over(self.runs, self.session, wait) or self.session

    def _prepare(self, plan: Plan, processors: Mapping[str, Processor]) -> Session:
        return Session(self.model, processors, follow=plan)


def _timed(
    run: Callable[[Trace | None], Result], trace: Trace | None, clock: Callable[[], float]
) -> tuple[Result, float, dict[str, float] | None]:
    """Its result, its microseconds, and those that processors were busy, if there is a trace."""
    first = 0 if trace is None else len(trace.events)
    start = clock()
    result = run(trace)
    us = (clock() - start) * 1e6
    return result, us, None if trace is None else busy_us(trace.events[first:])
