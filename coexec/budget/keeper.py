"""The budget of memory that a training keeps, and how it changes between two steps.

Another plan is made, and its kernels are built, while steps go on as they are; memory is taken when
the plan takes over. Under pressure (:mod:`coexec.budget.pressure`) the budget shrinks by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from coexec.base.errors import MemoryBudgetError
from coexec.base.units import bytes_text
from coexec.budget.amounts import AUTO
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.pressure import PressureWatch
from coexec.budget.settings import MemoryPlan, Setting
from coexec.core.types import Array
from coexec.steps.builder import Recipe
from coexec.steps.resident import ResidentPrograms

log = logging.getLogger(__name__)
Steps = BudgetedSteps | None
"""How steps are planned within a budget; none: there is no budget."""
Prepare = Callable[[Setting, Mapping[str, Array]], ResidentPrograms]
"""Programs of a step on such arrays, laid out; their memory is not taken yet."""
Budget = Callable[[str | int | None], Steps]


@dataclass(frozen=True)
class MemoryEvent:
    """What happened before ``step``: ``kind`` is ``switched``, ``pressure`` or ``kept``."""

    step: int
    kind: str
    text: str


class MemoryKeeper:
    """``steps`` are planned within the budget of now; ``watch``, if there is one, may lower it.

    A budget of ``auto`` is watched from the beginning. ``recipe`` is that of steps without one.
    """

    def __init__(
        self, recipe: Recipe, memory: str | int | None, budget: Budget, prepare: Prepare
    ) -> None:
        self.recipe = recipe
        self.steps = budget(memory)
        self.watch = PressureWatch() if memory == AUTO else None
        self.events: list[MemoryEvent] = []
        self._budget = budget
        self._prepare = prepare
        self._shapes: dict[str, Array] = {}
        self._at_once = False
        self._background = ThreadPoolExecutor(1, "coexec memory")
        self._next: Future[tuple[Steps, ResidentPrograms]] | None = None

    def change(self, steps: Steps, *, wait: bool) -> None:
        """Keep another budget: from the next step on, or once its plan is made and built."""
        self._at_once = wait or not self._shapes
        if self._at_once:
            self.steps, self._next = steps, None
        else:
            self._start(lambda shapes: (steps, self._ready(steps, shapes)))

    @property
    def plan(self) -> MemoryPlan | None:
        """How the step made last keeps its budget; none without a budget or a step."""
        return None if self.steps is None else self.steps.last

    def setting(self, arrays: Mapping[str, Array]) -> Setting:
        """How steps on batches of these shapes are computed."""
        return self._setting(self.steps, arrays)

    def settle(self) -> None:
        """Wait for the plan in the making, if there is one; the next step takes it over."""
        if self._next is not None:
            self._next.exception()

    def turn(
        self, step: int, arrays: Mapping[str, Array], programs: ResidentPrograms
    ) -> ResidentPrograms:
        """The programs for ``step`` on ``arrays``: those so far, or others with their states.

        Raises:
            MemoryBudgetError: the budget that is to be kept from this step on cannot be.
        """
        first = not self._shapes
        if step and self.steps is not None:
            self.steps.runs = False  # what a resumed training repeats was chosen before its begin
        self._shapes = {name: _shape_of(array) for name, array in arrays.items()}
        if self._at_once and not first:
            others = self._ready(self.steps, self._shapes)
            self._at_once = False
            return self._switched(step, programs, others)
        self._at_once = False
        if self._next is not None and self._next.done():
            return self._finished(step, programs)
        if self._next is None and self.watch is not None:
            now_bytes = self._step_bytes(programs)
            if now_bytes:
                self._feel(step, self.watch, now_bytes)
        return programs

    def _step_bytes(self, programs: ResidentPrograms) -> int:
        """What a step takes now; 0 before the first."""
        if self.plan is not None:
            return self.plan.peak_bytes
        return programs.training_bytes

    def _finished(self, step: int, programs: ResidentPrograms) -> ResidentPrograms:
        assert self._next is not None
        future, self._next = self._next, None
        try:
            self.steps, others = future.result()
        except MemoryBudgetError as error:
            self._tell(MemoryEvent(step, "kept", f"the budget stays: {error}"))
            return programs
        return self._switched(step, programs, others)

    def _feel(self, step: int, watch: PressureWatch, now_bytes: int) -> None:
        """Look at the pressure; if it is high, have a smaller step prepared."""
        found = watch.look(now_bytes)
        if found is None:
            return
        nbytes, why = found
        text = f"{why}: the budget falls from {bytes_text(now_bytes)} to {bytes_text(nbytes)}"
        self._tell(MemoryEvent(step, "pressure", text))

        def smaller(shapes: Mapping[str, Array]) -> tuple[Steps, ResidentPrograms]:
            try:
                steps = self._budget(nbytes)
                return steps, self._ready(steps, shapes)
            except MemoryBudgetError as error:
                if error.least_bytes >= now_bytes:
                    raise
                steps = self._budget(error.least_bytes)
                return steps, self._ready(steps, shapes)

        self._start(smaller)

    def _ready(self, steps: Steps, shapes: Mapping[str, Array]) -> ResidentPrograms:
        return self._prepare(self._setting(steps, shapes), shapes)

    def _setting(self, steps: Steps, arrays: Mapping[str, Array]) -> Setting:
        return Setting(self.recipe) if steps is None else steps.plan(arrays).setting

    def _start(self, work: Callable[[Mapping[str, Array]], tuple[Steps, ResidentPrograms]]) -> None:
        self._next = self._background.submit(work, self._shapes)

    def _switched(
        self, step: int, before: ResidentPrograms, programs: ResidentPrograms
    ) -> ResidentPrograms:
        programs.inherit(before)
        text = "no budget"
        if self.plan is not None:
            used = ", ".join(use.technique for use in self.plan.used) or "plain"
            text = f"{bytes_text(self.plan.peak_bytes)} a step ({used})"
        self._tell(MemoryEvent(step, "switched", text))
        return programs

    def _tell(self, event: MemoryEvent) -> None:
        self.events.append(event)
        log.info("before step %d: %s: %s", event.step, event.kind, event.text)


def _shape_of(array: Array) -> Array:
    """An array of the same shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
