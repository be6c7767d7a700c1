"""Profiling: traced and untraced steps in turn, the median one attributed and explained.

On simulated processors times are virtual: tracing takes none, and no untraced steps are run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from coexec.base.errors import UsageError
from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.machine import Rates
from coexec.core.processor import Processor, ProcessorSpec
from coexec.core.program import Program
from coexec.core.timeline import clock_of, timeline_among, timeline_of
from coexec.core.types import Array
from coexec.rates import machine_rates
from coexec.report.advice import Findings
from coexec.report.attribution import Attribution, attribute
from coexec.report.build_record import Measured, build_record
from coexec.report.record import OverheadRecord, ProfileRecord
from coexec.session import Session
from coexec.training.trainer import Trainer

MOST_STEPS, LEAST_SECONDS = 50, 0.5
"""Steps go on beyond those asked for until either is reached."""
NO_OVERHEAD: OverheadRecord = {
    "traced_ms": 0.0,
    "untraced_ms": 0.0,
    "fraction": 0.0,
    "collect_ms": 0.0,
}
Step = Callable[[Trace | None], object]
Observer = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """The record of the median step, its trace and the program that ran."""

    record: ProfileRecord
    trace: Trace
    program: Program


@dataclass(frozen=True)
class ProfileOptions:
    """How to profile: at least ``steps`` traced steps, as many untraced ones beside them.

    Of very short steps more are made, to compare the two. ``warm_up`` pairs of steps come before
    the first that counts: compilation, first touch of memory, caches; 0 if the subject has run
    before. ``observe`` hears of each stage.

    ``rates`` by processor name; measured (or read from the cache) where absent. ``options`` goes
    into the record as it is.
    """

    steps: int = 10
    warm_up: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, Rates] = field(default_factory=dict)
    observe: Observer = lambda _stage: None


def profile_session(
    session: Session,
    feeds: Mapping[str, Array],
    model: str,
    how: ProfileOptions = ProfileOptions(),
) -> Profile:
    """Profile runs of a compiled model; ``model`` is its name in the record."""

    def step(trace: Trace | None) -> object:
        return session.run(feeds, trace=trace)

    timing = _time(step, session.processors, how)
    return _profile("inference", model, session, feeds, timing, how)


def profile_training(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    labels: Array | None,
    model: str,
    how: ProfileOptions = ProfileOptions(),
) -> Profile:
    """Profile training steps on one batch; the parameters change as in any training.

    Raises:
        UsageError: the trainer splits batches into micro-batches: a step is several runs then.
    """
    if trainer.recipe.micro_batches != 1:
        raise UsageError("profile a trainer without micro_batches, at the micro-batch's size")

    def step(trace: Trace | None) -> object:
        return trainer.step(feeds, labels, trace)

    timing = _time(step, trainer.processors, how)
    return _profile("training", model, trainer, feeds, timing, how)


@dataclass(frozen=True)
class _Timing:
    """The median traced step, and what tracing cost."""

    trace: Trace
    steps: int
    overhead: OverheadRecord


def _time(step: Step, processors: Mapping[str, Processor], how: ProfileOptions) -> _Timing:
    if how.steps < 1:
        raise UsageError(f"steps must be at least 1, not {how.steps}")
    how.observe("warm-up")
    runners = processors.values()
    if timeline_among(runners) is None:
        return _real(step, how)
    return _virtual(step, clock_of(runners), how)


def _virtual(step: Step, clock: Callable[[], float], how: ProfileOptions) -> _Timing:
    """The median step of those asked for, in virtual time; the first may bring parameters."""
    step(None)
    traced: list[tuple[float, Trace]] = []
    for number in range(how.steps):
        how.observe(f"step {number + 1}")
        trace, start = Trace(), clock()
        step(trace)
        traced.append((clock() - start, trace))
    traced.sort(key=lambda item: item[0])
    return _Timing(traced[len(traced) // 2][1], len(traced), NO_OVERHEAD)


def _real(step: Step, how: ProfileOptions) -> _Timing:
    for _ in range(how.warm_up):
        step(None)
        step(Trace())
    traced: list[tuple[int, int, Trace]] = []
    untraced: list[int] = []
    began = time.perf_counter()
    while len(traced) < how.steps or (
        len(traced) < MOST_STEPS and time.perf_counter() - began < LEAST_SECONDS
    ):
        how.observe(f"step {len(traced) + 1}")
        # Which of the two comes first alternates: neither gets the warmer caches.
        for is_traced in (True, False) if len(traced) % 2 else (False, True):
            if is_traced:
                traced.append(traced_step(step))
            else:
                start = time.perf_counter_ns()
                step(None)
                untraced.append(time.perf_counter_ns() - start)
    ranked = sorted(traced, key=lambda item: item[0])
    # Other work on the machine only ever adds: the fastest of each tell what tracing costs.
    with_trace, without = ranked[0][0], min(untraced)
    overhead: OverheadRecord = {
        "traced_ms": with_trace / 1e6,
        "untraced_ms": without / 1e6,
        "fraction": with_trace / without - 1,
        "collect_ms": median(item[1] for item in traced) / 1e6,
    }
    return _Timing(ranked[len(ranked) // 2][2], len(ranked), overhead)


def traced_step(step: Step) -> tuple[int, int, Trace]:
    """Run a step traced: (nanoseconds of the step, of collecting its events afterwards, trace).

    The trace gets one run around the executor's: what the host does before launching counts too.
    """
    trace = Trace()
    start = time.perf_counter_ns()
    step(trace)
    returned = time.perf_counter_ns()
    end = max(event.end_ns for event in trace.host() if event.kind == RUN)
    trace.events.append(Event("step", RUN, HOST, start, end))
    return end - start, returned - end, trace


def _profile(
    mode: str,
    model: str,
    subject: Session | Trainer,
    feeds: Mapping[str, Array],
    timing: _Timing,
    how: ProfileOptions,
) -> Profile:
    specs = _specs(subject.processors, timing.trace)
    only_cpu = all(spec.kind == "cpu" for spec in specs.values())
    compared = [] if only_cpu else _cpu_of(subject.processors)
    rates = _rates([*specs, *compared], how)
    cpu = rates[compared[0]] if compared else None
    record = _record(mode, model, subject, feeds, timing, rates, cpu, how.options)
    return Profile(record, timing.trace, subject.program)


def _cpu_of(processors: Mapping[str, Processor]) -> list[str]:
    """The CPU that others are compared with: the host's through NumPy, or that of their phone.

    The reference comes last and has the host's clock: no CPU of a simulated phone, which has to be
    among the processors to be compared with.
    """
    timeline = timeline_among(processors.values())
    cpus = [
        name
        for name, each in processors.items()
        if each.describe().kind == "cpu" and timeline_of(each) is timeline
    ]
    return cpus[-1:]


def record_of_trace(
    mode: str,
    model: str,
    subject: Session | Trainer,
    feeds: Mapping[str, Array],
    trace: Trace,
    rates: Mapping[str, Rates],
    cpu: Rates | None = None,
) -> ProfileRecord:
    """The record of a run that was traced in virtual time, where tracing costs nothing.

    ``mode`` is ``inference`` or ``training``, ``rates`` are by processor, ``cpu`` those of the
    device's CPU.
    """
    return _record(mode, model, subject, feeds, _Timing(trace, 1, NO_OVERHEAD), rates, cpu, {})


def _record(
    mode: str,
    model: str,
    subject: Session | Trainer,
    feeds: Mapping[str, Array],
    timing: _Timing,
    rates: Mapping[str, Rates],
    cpu: Rates | None,
    options: Mapping[str, Any],
) -> ProfileRecord:
    used = _used(subject.processors, timing.trace)
    attribution = attribute(timing.trace, rates)
    findings = Findings(
        attribution=attribution,
        specs={name: processor.describe() for name, processor in used.items()},
        rates=rates,
        first=_judged(subject, attribution),
        refusals=subject.plan.refusals,
        cpu=cpu,
        batch_size=_batch_size(feeds),
    )
    inputs = {name: list(array.shape) for name, array in feeds.items()}
    measured = Measured(
        model=model,
        mode=mode,
        options={**options, "inputs": inputs},
        trace=timing.trace,
        program=subject.program,
        findings=findings,
        clocks={name: getattr(processor, "clock", "host") for name, processor in used.items()},
        steps=timing.steps,
        overhead=timing.overhead,
        fallbacks=subject.plan.table().splitlines(),
        allocated_bytes=_allocated(used),
        in_floats=_in_floats(subject),
    )
    return build_record(measured)


def _judged(subject: Session | Trainer, attribution: Attribution) -> str:
    """The processor that advice is about: the preferred one; of a plan by costs, the busiest."""
    busy = {name: times.busy_ns for name, times in attribution.tracks.items()}
    if not subject.plan.policy or not busy:
        return next(iter(subject.processors))
    return max(busy, key=busy.__getitem__)


def _in_floats(subject: Session | Trainer) -> list[str]:
    """Quantised layers that a session computes in floats; training computes all in floats."""
    return subject.quantised.table().splitlines() if isinstance(subject, Session) else []


def _allocated(used: Mapping[str, Processor]) -> dict[str, int]:
    """What the allocators of processors have given out, of those that count."""
    counted = {
        name: getattr(processor, "allocated_bytes", None) for name, processor in used.items()
    }
    return {name: nbytes for name, nbytes in counted.items() if isinstance(nbytes, int)}


def _specs(processors: Mapping[str, Processor], trace: Trace) -> dict[str, ProcessorSpec]:
    return {name: each.describe() for name, each in _used(processors, trace).items()}


def _used(processors: Mapping[str, Processor], trace: Trace) -> dict[str, Processor]:
    """Processors that did anything."""
    tracks = {event.track for event in trace.events}
    return {name: processor for name, processor in processors.items() if name in tracks}


def _rates(names: Sequence[str], how: ProfileOptions) -> dict[str, Rates]:
    missing = [name for name in dict.fromkeys(names) if name not in how.rates]
    machine = machine_rates(missing, observe=lambda name: how.observe(f"measuring {name}"))
    return {**how.rates, **machine.processors}


def _batch_size(feeds: Mapping[str, Array]) -> int:
    return next((len(array) for array in feeds.values() if array.ndim), 0)
