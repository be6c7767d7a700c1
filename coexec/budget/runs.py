"""Forms of a training step that are run for a moment, to see which is the fastest.

States are zeros or first values of a training that ends here, and the learning rate is 0: nothing
of it is left but times, which are kept among those of calls. So a training that is resumed, or
begun again, finds them and comes to the same choice without a run.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from coexec.base.errors import CoexecError
from coexec.base.pages import give_back_heap
from coexec.budget.settings import Setting
from coexec.budget.splitting import lay_out, part_of
from coexec.budget.techniques import state_bits
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.cost.distribution import Distribution
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import Entry
from coexec.cost.whole import STEP, Program
from coexec.ops.node import call_of, type_of
from coexec.runtime.mode import ExecutionMode
from coexec.steps.gated import run_gated
from coexec.steps.resident import Compiled, ResidentPrograms

RUN = "#step within a budget"
"""Keys of times of such steps begin so."""
STEPS, TURNS, LEAST_TURNS = 2, 5, 2
"""Steps that are timed of each form in a turn; how many turns there are."""
FAR = 1.15
"""Times the fastest: what took longer in all of the first turns is left out of the others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepRuns:
    """Times of forms of a step: those known, and for ``seconds`` those that are not.

    ``plain`` is the graph of the step with nothing changed, ``arrays`` have the shapes of a batch.
    With 0 ``seconds`` nothing is run. One form is in memory at a time. Of times, the first decile
    counts: what disturbs a step makes it longer.
    """

    model: ir.Model
    processors: Mapping[str, Processor]
    mode: ExecutionMode
    arrays: Mapping[str, Array]
    costs: ProcessorCosts
    plain: ir.Graph
    seconds: float

    def __call__(self, settings: Sequence[Setting]) -> list[float | None]:
        """Milliseconds of a step by each setting; if the first is known, all were run before."""
        known = [self._known(each) for each in settings]
        if known[0] is not None or self.seconds <= 0:
            return known
        for setting, samples in zip(settings, self._run_all(settings), strict=True):
            if samples:
                time_us = Distribution.of([1e3 * ms for ms in samples])
                # As they are read from the file again: of equal ones, the first is taken.
                rounded = (round(us, 3) for us in vars(time_us).values())
                entry = Entry(Distribution(*rounded), code=self._code)
                self.costs.store.put(self._key(setting), entry)
        self.costs.store.save()
        return [self._known(each) for each in settings]

    def may_decide(self, first: Setting) -> bool:
        """Whether steps by a setting were run, or may be: else predictions decide."""
        return self.seconds > 0 or self._known(first) is not None

    def _known(self, setting: Setting) -> float | None:
        entry = self.costs.store.get(self._key(setting))
        return None if entry is None or entry.code != self._code else entry.time.low_us / 1e3

    def _key(self, setting: Setting) -> str:
        return f"{RUN} {self._program.digest} {_digest(setting)}"

    @cached_property
    def _program(self) -> Program:
        return Program(tuple(call_of(node) for node in self.plain), STEP)

    @cached_property
    def _code(self) -> str:
        return self._program.code([self.costs])

    def _run_all(self, settings: Sequence[Setting]) -> list[list[float]]:
        """Milliseconds of steps of each in turns; what is far from the fastest leaves early."""
        began = time.perf_counter()
        times: list[list[float]] = [[] for _ in settings]
        forms = dict(enumerate(self._laid_out(each) for each in settings))
        for turn in range(TURNS):
            for number, programs in forms.items():
                if turn >= LEAST_TURNS and time.perf_counter() - began > self.seconds:
                    return times
                times[number] += self._run(programs, settings[number])
            if turn + 1 >= LEAST_TURNS:
                best = min((min(each) for each in times if each), default=0.0)
                forms = {n: f for n, f in forms.items() if times[n] and min(times[n]) < FAR * best}
        return times

    def _laid_out(self, setting: Setting) -> ResidentPrograms:
        """Programs of a form, built; they have no memory yet."""
        programs = ResidentPrograms(self.processors, self.mode)
        lay_out(programs, self.model, setting, self.arrays)
        return programs

    def _run(self, programs: ResidentPrograms, setting: Setting) -> list[float]:
        """Milliseconds of steps behind one that is not timed; none if it fails (see the log)."""
        try:
            return [_timed(programs, setting, self.arrays) for _ in range(STEPS + 1)][1:]
        except CoexecError as error:
            log.warning("a form of the step within the budget was not run: %s", error)
            return []
        finally:
            programs.put_away()
            give_back_heap()


def _timed(programs: ResidentPrograms, setting: Setting, arrays: Mapping[str, Array]) -> float:
    """Milliseconds of a step that changes no parameter."""
    count = setting.recipe.micro_batches
    kind, part = part_of(setting.recipe, arrays)
    compiled = _found(programs.find(kind, part))
    feeds = _feeds(compiled, part)
    start = time.perf_counter()
    for _ in range(count):
        run_gated(compiled, feeds, 0, lambda: None, None)
    if count > 1:
        update = _found(programs.find("update", {}))
        update.executor.run(update.graph.scalars(0.0, 0, 1.0), ())
    return (time.perf_counter() - start) * 1e3


def _found(compiled: Compiled | None) -> Compiled:
    assert compiled is not None
    return compiled


def _feeds(compiled: Compiled, part: Mapping[str, Array]) -> dict[str, Array]:
    """Normal numbers where a batch has floats, and else zeros, as for labels."""
    graph, rng = compiled.graph, np.random.default_rng(0)
    labels = {v.name: type_of(v) for v in graph.model.graph.inputs if v.name == graph.labels}
    feeds = {name: _data(array, rng) for name, array in part.items()}
    feeds |= {str(name): np.zeros(kind.shape, kind.dtype) for name, kind in labels.items()}
    feeds |= graph.scalars(0.0, 0, 1.0)
    return {name: feeds[name] for name in compiled.executor.program.inputs}


def _data(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return np.zeros(array.shape, array.dtype)
    return rng.standard_normal(array.shape, np.float32).astype(array.dtype)


def _digest(setting: Setting) -> str:
    """What tells forms of one step apart."""
    recipe = setting.recipe
    ways = (recipe.micro_batches, recipe.precision, recipe.activations, recipe.batch_statistics)
    more = (recipe.updates, recipe.paging, recipe.divided, state_bits(recipe.optimizer))
    text = repr((*ways, *more, recipe.workspace, setting.recompute))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
