"""The models of a workload, compiled for its processors, with what a request takes on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from coexec.api import LAST_RESORT, load, open_all
from coexec.base.cores import pinned
from coexec.base.errors import CoexecError, ModelError, ProcessorError
from coexec.core.plan import Plan
from coexec.core.timeline import clock_name, clock_of, timeline_of
from coexec.core.types import Array
from coexec.cost.silicon import shared
from coexec.inputs import model_inputs
from coexec.placement.policies.table import PIPELINE
from coexec.placement.save import load_plan
from coexec.serving.request import Choice, Option, Service
from coexec.serving.stages import compile_stages
from coexec.serving.threads import Cores, own_cores
from coexec.serving.timing import time_ms
from coexec.serving.workload import Asked, Workload
from coexec.session import Session
from coexec.zoo.catalog import build

Tensors = Mapping[str, Array]
Observer = Callable[[str], None]
"""Hears what is being compiled and timed."""


@dataclass(frozen=True)
class Way:
    """How a step runs; ``processors`` and ``blocked`` as in an ``Option``.

    The thread that runs it is tied to ``cores``; ``clock`` tells seconds of its processors.
    ``refused`` tells which nodes run on the last resort instead; empty if none.
    """

    name: str
    processors: tuple[int, ...]
    blocked: tuple[int, ...]
    cores: Cores
    run: Callable[[Tensors], Tensors]
    clock: Callable[[], float]
    refused: str = ""


@dataclass
class Compiled:
    """A model that serves requests, all on the same seeded random inputs; its steps' ways."""

    service: Service
    feeds: Tensors
    steps: Sequence[Sequence[Way]]
    _between: dict[int, Tensors] = field(default_factory=dict)

    def work(self, choice: Choice) -> None:
        """Run a step of a request; what it leaves waits for the next step."""
        number, step = choice.request.number, choice.request.step
        tensors = self._between.pop(number) if step else self.feeds
        (way,) = (each for each in self.steps[step] if each.name == choice.option.name)
        tensors = way.run(tensors)
        if step + 1 < len(self.steps):
            self._between[number] = tensors

    @property
    def refused(self) -> dict[str, str]:
        """By processor, which nodes run on the last resort instead."""
        return {way.name: way.refused for ways in self.steps for way in ways if way.refused}


def compile_workload(
    workload: Workload, observe: Observer = lambda _text: None
) -> tuple[Compiled, ...]:
    """Compile each model for each processor, or as its plan says, and time what is not given.

    Raises:
        ProcessorError: a processor is not there, or stands there twice.
        ModelError: anything is wrong with a model or its plan; the message names the model.
    """
    desk = _Desk(workload)
    compiled = []
    for asked in workload.models:
        try:
            compiled.append(desk.compile(asked, observe))
        except CoexecError as error:
            raise ModelError(f"models.{asked.name}: {error}") from error
    return tuple(compiled)


class _Desk:
    """The processors of a workload, opened; ``names`` are theirs in the workload's order."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.opened = open_all(workload.processors)
        self.names = tuple(next(iter(open_all([spec]))) for spec in workload.processors)
        if len(set(self.names)) < len(self.names):
            specs = ", ".join(workload.processors)
            raise ProcessorError(f"the workload names one processor twice: {specs}")
        self.cores = cores_of_processors(workload)
        self.clock = clock_of(self.opened.values())
        self.resources = [self.opened[name].describe().resources for name in self.names]

    def compile(self, asked: Asked, observe: Observer) -> Compiled:
        """One model."""
        observe(f"compiling {asked.name}")
        model = load(build(asked.source, 1) if isinstance(asked.source, str) else asked.source)
        model = load(model, asked.shapes) if asked.shapes else model
        feeds = random_feeds(model, self.workload.seed)
        steps = self._steps(asked, model)
        observe(f"timing {asked.name}")
        specs = dict(zip(self.names, self.workload.processors, strict=True))
        given = {name: asked.times_ms[s] for name, s in specs.items() if s in asked.times_ms}
        service = Service(
            asked.name,
            _timed(steps, feeds, given),
            asked.deadline_ms,
            self.workload.processors.index(asked.processor) if asked.processor else None,
        )
        return Compiled(service, feeds, steps)

    def _steps(self, asked: Asked, model: ir.Model) -> list[list[Way]]:
        if asked.plan is None:
            return [[self._whole(model, number) for number in range(len(self.names))]]
        planned, plan = load_plan(asked.plan)
        strangers = {*plan.processors.values(), *_sharers(plan)} - {*self.names, LAST_RESORT}
        if strangers:
            raise ProcessorError(
                f"the plan {asked.plan} needs {', '.join(sorted(strangers))}: "
                "name it among the workload's processors"
            )
        if plan.policy != PIPELINE:
            return [[self._together(model, plan)]]
        stages = compile_stages(planned, plan, self.opened, LAST_RESORT)
        return [[self._way(s.processor, [s.processor], s.run)] for s in stages]

    def _whole(self, model: ir.Model, number: int) -> Way:
        name = self.names[number]
        session = Session(model, {n: self.opened[n] for n in dict.fromkeys((name, LAST_RESORT))})
        return self._way(name, [name], session.run, session.fallbacks)

    def _together(self, model: ir.Model, plan: Plan) -> Way:
        """A plan that several processors follow at once for one request."""
        session = Session(model, self.opened, follow=plan)
        names = [*dict.fromkeys((*plan.processors.values(), *_sharers(plan)))]
        return self._way(" + ".join(names), names, session.run)

    def _way(
        self,
        name: str,
        processors: Sequence[str],
        run: Callable[[Tensors], Tensors],
        refused: str = "",
    ) -> Way:
        own = tuple(self.names.index(each) for each in processors if each in self.names)
        blocked = tuple(
            number
            for number, resources in enumerate(self.resources)
            if number not in own and any(shared(resources, self.resources[p]) for p in own)
        )
        cores = self.cores[own[0]] if own else ()
        return Way(name, own, blocked, cores, run, self.clock, refused)


def _sharers(plan: Plan) -> list[str]:
    """Processors that have a share of a divided node."""
    return [name for split in plan.splits.values() for name in split.sizes]


def _timed(
    steps: Sequence[Sequence[Way]], feeds: Tensors, given: Mapping[str, float]
) -> tuple[tuple[Option, ...], ...]:
    """The ways as options: their times alone, given by processor or measured here."""
    options, before = [], feeds
    for ways in steps:
        after = [way.run(before) for way in ways]  # compiles what shapes left open, and warms up
        options.append(
            tuple(
                Option(
                    way.name,
                    way.processors,
                    given[way.name] if way.name in given else _time_ms(way, before),
                    way.blocked,
                )
                for way in ways
            )
        )
        before = after[0]
    return tuple(options)


def _time_ms(way: Way, tensors: Tensors) -> float:
    """Time alone, on a thread as the serving will have it."""
    with pinned(way.cores):
        return time_ms(partial(way.run, tensors), way.clock)


def random_feeds(model: ir.Model, seed: int) -> dict[str, Array]:
    """Seeded data for every input of known shape: normal floats, integers 0 and 1.

    Raises:
        ModelError: a shape is open.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model_inputs(model):
        if value.shape is None or not value.shape.is_static() or value.dtype is None:
            raise ModelError(f"input {value.name!r} has an open shape: give it under shapes")
        dtype, shape = np.dtype(value.dtype.numpy()), tuple(value.shape.numpy())
        data = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[str(value.name)] = data.astype(dtype)
    return feeds


def cores_of_processors(workload: Workload) -> tuple[Cores, ...]:
    """Cores of each processor of a workload, in its order; none of those with more than cores."""
    opened = (next(iter(open_all([spec]).values())) for spec in workload.processors)
    return tuple(own_cores(processor) for processor in opened)


def clock_of_workload(workload: Workload) -> str:
    """``host`` or ``virtual``: the clock of a workload's processors.

    Raises:
        ProcessorError: it has several, or a processor is not there.
    """
    first, *others = (next(iter(open_all([spec]).values())) for spec in workload.processors)
    for other in others:
        if timeline_of(other) is not timeline_of(first):
            raise ProcessorError(
                f"{first.describe().name} and {other.describe().name} have not the same clock: a "
                "workload is for processors of this machine, or for those of one phone"
            )
    return clock_name([first])


def services_by_given_times(workload: Workload) -> tuple[Service, ...] | None:
    """The services of a workload in which all times are given; ``None`` if one is missing.

    No processor is opened, and none is taken to share silicon with another one.
    """
    specs = workload.processors
    if any(spec not in asked.times_ms for asked in workload.models for spec in specs):
        return None
    return tuple(
        Service(
            asked.name,
            (tuple(Option(s, (n,), asked.times_ms[s]) for n, s in enumerate(specs)),),
            asked.deadline_ms,
            specs.index(asked.processor) if asked.processor else None,
        )
        for asked in workload.models
    )
