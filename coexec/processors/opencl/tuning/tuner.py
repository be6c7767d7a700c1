"""The tuner of an OpenCL device: notes a model's calls, then searches the heavy ones first."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Protocol

from coexec.base.errors import ProcessorError
from coexec.core.tuning import Observer, TunedCall, TuneReport
from coexec.core.types import OpCall
from coexec.ops.table import opdef
from coexec.processors.opencl.choose import Choice, by_default
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.tuning.bench import CallBench
from coexec.processors.opencl.tuning.key import CallKey, key_of
from coexec.processors.opencl.tuning.record import Record
from coexec.processors.opencl.tuning.search import Found, Refused, Search, Trial
from coexec.processors.opencl.tuning.shapes import representative_calls
from coexec.processors.opencl.tuning.smaller import smaller
from coexec.processors.opencl.tuning.space import Space
from coexec.processors.opencl.tuning.store import Entry, source_digest

MEASURING = 0.3
"""Share of the budget for finding out which calls are heavy."""

LEAST_SECONDS = 0.5
"""A call that is tuned at all gets this much, as long as it is there."""

NAIVE_SHARE, NAIVE_RATIO = 0.25, 100.0
"""The naive variant is the oracle unless its one run would take more than this share of a call's
time. Until one of its family was timed, it counts as this many times slower than the default."""

SAMPLES = 3
NOT_REACHED, NOTHING = "no time left", "nothing to tune"
SEED = 0


class Bench(Protocol):
    """What runs candidates of one call: see :class:`CallBench`."""

    def set_oracle(self, oracle: Choice) -> float: ...

    def prepare(self, choice: Choice) -> Trial: ...


@dataclass
class Noted:
    """A call of the step: its family, how often it occurs, and a run's milliseconds if known."""

    family: KernelFamily
    call: OpCall
    count: int = 0
    ms: float = 0.0


@dataclass(frozen=True)
class Oracle:
    """Prepares candidates and checks them against ``name``; whether the naive variant is slow."""

    prepare: Callable[[Choice], Trial]
    name: str
    slow: bool = True


class OpenCLTuner:
    """Tunes ``processor``; compiling models with it notes their calls, with default values."""

    def __init__(
        self,
        processor: OpenCLProcessor,
        clock: Callable[[], float] = time.monotonic,
        bench: Callable[[OpenCLProcessor, OpCall], Bench] = CallBench,
    ) -> None:
        self.processor = processor
        processor.choose = self._note
        self._clock = clock
        self._bench = bench
        self._noted: dict[CallKey, Noted] = {}
        self._by_time = True
        self._naive_ratio: dict[str, float] = defaultdict(lambda: NAIVE_RATIO)

    def add_representative(self, batch_sizes: tuple[int, ...]) -> None:
        """Note typical calls, each as important as any other."""
        self._by_time = False
        for call in representative_calls(batch_sizes):
            self._note(KERNELS[call.identifier], call, self.processor.facts)

    def _note(self, family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        noted = self._noted.setdefault(key_of(call), Noted(family, call))
        noted.count += 1
        return by_default(family, call, facts)

    def tune(self, seconds: float, observe: Observer, save: Path | None) -> TuneReport:
        """See :class:`coexec.core.tuning.Tuner`."""
        start = self._clock()
        record = Record.open(self.processor.facts, save)
        done: dict[CallKey, TunedCall] = {}

        def say(text: str) -> None:
            observe(self._clock() - start, text)

        interrupted = False
        try:
            if self._by_time:
                self._measure(start + MEASURING * seconds, say)
            self._tune_all(start + seconds, record, done, say)
        except KeyboardInterrupt:
            interrupted = True
        for key, noted in self._noted.items():
            if key not in done:
                done[key] = self._untuned(key, noted, NOT_REACHED)
        return TuneReport(
            processor=self.processor.name,
            device=self.processor.facts.name,
            seconds=self._clock() - start,
            calls=tuple(sorted(done.values(), key=lambda call: -call.gain_ms)),
            files=record.written,
            stale=record.stale,
            interrupted=interrupted,
        )

    def _measure(self, deadline: float, say: Callable[[str], None]) -> None:
        """A first time of each call with its default values."""
        for key, noted in self._noted.items():
            if self._clock() >= deadline:
                return
            say(f"measuring {key.text}")
            default = by_default(noted.family, noted.call, self.processor.facts)
            try:
                trial = self._bench(self.processor, noted.call).prepare(default)
            except (Refused, ProcessorError):
                continue  # reported when its turn to be tuned comes
            noted.ms = median(trial.sample() for _ in range(SAMPLES))

    def _tune_all(
        self,
        deadline: float,
        record: Record,
        done: dict[CallKey, TunedCall],
        say: Callable[[str], None],
    ) -> None:
        """Heavy calls first, each for its share of the time left; those tuned before come last."""
        before = record.dates

        def rank(item: tuple[CallKey, Noted]) -> tuple[bool, float]:
            return item[0] in before, -self._weight(item[1])

        ranked = sorted(self._noted.items(), key=rank)
        for key, noted in ranked:
            if Space.of(noted.family, noted.call, self.processor.facts).size == 1:
                done[key] = self._untuned(key, noted, NOTHING)
        waiting = [item for item in ranked if item[0] not in done]
        for index, (key, noted) in enumerate(waiting):
            left = deadline - self._clock()
            if left <= 0:
                return
            rest = sum(self._weight(other) for _, other in waiting[index:])
            share = left * self._weight(noted) / rest if rest else left
            say(f"tuning {key.text}")
            done[key] = self._tune_one(key, noted, min(left, max(share, LEAST_SECONDS)), record)

    def _weight(self, noted: Noted) -> float:
        return noted.count * noted.ms if self._by_time else 1.0

    def _tune_one(self, key: CallKey, noted: Noted, seconds: float, record: Record) -> TunedCall:
        deadline = self._clock() + seconds
        facts = self.processor.facts
        default = by_default(noted.family, noted.call, facts)
        try:
            bench = self._bench(self.processor, noted.call)
            oracle = self._oracle(bench, noted, default, seconds)
            known = record.chooser.tuned(noted.family, noted.call, facts)
            space = Space.of(
                noted.family,
                noted.call,
                facts,
                () if known is None else (known,),
                without=noted.family.naive.name if oracle.slow else "",
            )
            # Another search of the same call draws other candidates.
            seed = f"{SEED} {key} {record.dates.get(key, '')}"
            dice = random.Random(seed)  # noqa: S311  # no secrets here
            found = Search(space, oracle.prepare, self._clock, deadline, dice).run()
        except (Refused, ProcessorError) as error:
            return self._untuned(key, noted, f"{default}: {error}")
        noted.ms = found.default_ms
        if found.tally.tried:
            record.add(self._entry(key, noted.call, found))
        return TunedCall(
            operator=key.operator,
            kind=key.kind,
            sizes=key.sizes,
            count=noted.count,
            default=str(default),
            chosen=str(found.best),
            default_ms=found.default_ms,
            ms=found.ms,
            tried=found.tally.tried,
            cut=found.tally.cut,
            refused=dict(found.tally.refused),
            checked=oracle.name,
        )

    def _oracle(self, bench: Bench, noted: Noted, default: Choice, seconds: float) -> Oracle:
        """What candidates are held to: the naive variant, where it can be afforded.

        Else they have to agree with the default on this call, and with the naive variant on a
        smaller one like it.
        """
        naive, family = noted.family.naive, noted.family.name
        ms = bench.set_oracle(default)
        if naive is default.variant:
            return Oracle(bench.prepare, naive.name, slow=False)
        ratio = self._naive_ratio[family]
        if ms * ratio / 1e3 <= NAIVE_SHARE * seconds:
            naive_ms = bench.set_oracle(self._naive(noted, noted.call))
            self._naive_ratio[family] = naive_ms / max(ms, 1e-6)
            return Oracle(bench.prepare, naive.name, slow=naive_ms > 2 * ms)
        less = smaller(noted.call)
        if less is None:
            return Oracle(bench.prepare, default.variant.name, slow=True)
        part = opdef(less).work(less).flop / max(opdef(noted.call).work(noted.call).flop, 1)
        if part * ms * ratio / 1e3 > NAIVE_SHARE * seconds:
            return Oracle(bench.prepare, default.variant.name, slow=True)
        small = self._bench(self.processor, less)
        small.set_oracle(self._naive(noted, less))

        def prepare(choice: Choice) -> Trial:
            if choice.variant.applies(less, self.processor.facts) is None:
                small.prepare(choice)
            return bench.prepare(choice)

        return Oracle(prepare, f"{default.variant.name}, {naive.name} on {key_of(less).text}")

    def _naive(self, noted: Noted, call: OpCall) -> Choice:
        naive = noted.family.naive
        return Choice(naive, naive.defaults(call, self.processor.facts))

    def _entry(self, key: CallKey, call: OpCall, found: Found) -> Entry:
        kernels = found.best.lower(call, self.processor.facts).calls
        return Entry(
            key=key,
            variant=found.best.variant.name,
            values=dict(found.best.values),
            default_ms=found.default_ms,
            ms=found.ms,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            sources={name: source_digest(name) for name in sorted({k.family for k in kernels})},
        )

    def _untuned(self, key: CallKey, noted: Noted, note: str) -> TunedCall:
        default = str(by_default(noted.family, noted.call, self.processor.facts))
        return TunedCall(
            key.operator,
            key.kind,
            key.sizes,
            noted.count,
            default,
            default,
            noted.ms,
            noted.ms,
            note=note,
        )
