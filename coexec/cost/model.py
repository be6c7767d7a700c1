"""One question: what does this node cost there? Measured, else fitted, else roofline."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coexec.base.errors import CoexecError
from coexec.core.machine import Rates
from coexec.core.processor import Processor
from coexec.core.types import OpCall
from coexec.cost.contention import slowdown
from coexec.cost.distribution import Distribution
from coexec.cost.fitted import FittedCosts, features, fit
from coexec.cost.key import call_key
from coexec.cost.measured import measure_call, prepare_call
from coexec.cost.roofline import roofline_us
from coexec.cost.silicon import shared
from coexec.cost.store import CostStore, Entry
from coexec.cost.transfer import (
    HostLink,
    Line,
    between,
    link_from_rates,
    measure_handover,
    measure_link,
)
from coexec.ops.table import opdef

log = logging.getLogger(__name__)
MEASURED, FITTED, ROOFLINE, VIEW = "measured", "fitted", "roofline", "view"
LINKS = ("#write", "#read")
"""Keys of the host's link among a processor's times; time per byte stands in the features."""
LINK = "link"
"""Stands among the calls that failed if the link could not be measured."""
SLOWDOWN = "#slowdown in turns"
"""Key, with a name behind it, of how another processor slows this one down: the only feature.
It names the way of measuring, so that what was measured in another way is not taken for it."""
HANDOVER = "#end to start by flags"
"""Key, with a name behind it, of the way to another processor in memory that both share. It and the
next one name what processors of this version tell each other by, where they can."""
EXCHANGE = "#exchange by flags or the caller"
"""Key, with a name behind it, of the host's time for letting another processor go on from here."""
OWN_KEYS = "#"
"""Keys that begin so are of no operator call."""

Observer = Callable[[float, str], None]
"""Hears of the seconds that have passed and of what is being measured."""


@dataclass(frozen=True)
class Cost:
    """A time and where it is from: ``measured``, ``fitted``, ``roofline``, or ``view``: nothing."""

    time: Distribution
    source: str


@dataclass
class ProcessorCosts:
    """Costs on one processor. ``failed`` are calls that it supports by its word and does not run.

    ``rates`` are its measured limits. ``fitted`` is there once a call was asked for that was not
    measured. ``outdated`` counts times that were measured with other kernels or tuned values: they
    are forgotten.
    """

    processor: Processor
    rates: Rates
    store: CostStore
    fitted: FittedCosts | None = None
    failed: dict[str, str] = field(default_factory=dict)
    outdated: int = 0
    _fitted_entries: int = -1
    _codes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.processor.describe().name

    @property
    def restart_us(self) -> float:
        """What one more launch takes; the times of real processors have it in them."""
        return 0.0

    @property
    def copies(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """What copies to the host and from there occupy it for: microseconds, those per byte.

        Of real processors nothing is known: the host copies, and they go on meanwhile.
        """
        return (0.0, 0.0), (0.0, 0.0)

    def cost(self, call: OpCall) -> Cost:
        """What a call that the processor supports costs."""
        if opdef(call).view:
            return Cost(Distribution.exactly(0.0), VIEW)
        entry = self.measured(call)
        if entry is not None:
            return Cost(entry.time, MEASURED)
        self._fit()
        predicted = self.fitted.predict(call) if self.fitted is not None else None
        if predicted is not None:
            return Cost(predicted, FITTED)
        return Cost(Distribution.exactly(roofline_us(call, self.rates)), ROOFLINE)

    def cost_alone(self, call: OpCall) -> Cost:
        """The same for a call that no kernel before it can take in: measured times are such."""
        return self.cost(call)

    def measured(self, call: OpCall) -> Entry | None:
        """The time of a call if it was measured with the code that would execute it now."""
        key = call_key(call)
        entry = self.store.get(key)
        if entry is None or entry.code == self.code(call):
            return entry
        self.store.drop(key)
        self.outdated += 1
        log.info("%s on %s: measured with other kernels", call.identifier, self.name)
        return None

    def code(self, call: OpCall) -> str:
        """The processor's digest of what executes a call, asked once for calls of one key."""
        key = call_key(call)
        if key not in self._codes:
            self._codes[key] = self.processor.code_of(call)
        return self._codes[key]

    def link(self) -> HostLink:
        """The way to the host and back: measured before, else from the rates."""
        write, read = (self.store.get(key) for key in LINKS)
        if write is None or read is None:
            return link_from_rates(self.rates)
        return HostLink(Line(write.time, write.features[0]), Line(read.time, read.features[0]))

    def way(self, other: ProcessorCosts) -> Line:
        """The way to another processor: measured from end to start, else through the host."""
        entry = self.store.get(_pair_key(HANDOVER, other))
        return between(self.link(), other.link()) if entry is None else Line(entry.time, 0.0)

    def exchange_us(self, other: ProcessorCosts) -> float | None:
        """The host's time for letting ``other`` go on with a result of this; none if not measured.

        A launch of what goes on is not in it.
        """
        entry = self.store.get(_pair_key(EXCHANGE, other))
        return None if entry is None else entry.time.median_us

    def learn_exchange(self, other: ProcessorCosts, time: Distribution) -> None:
        """Keep what :meth:`exchange_us` tells."""
        self.store.put(_pair_key(EXCHANGE, other), Entry(time))

    def slowdown(self, other: ProcessorCosts) -> float:
        """How many times longer things take here while ``other`` is busy; 1 if nobody measured."""
        entry = self.store.get(_pair_key(SLOWDOWN, other))
        return 1.0 if entry is None else entry.features[0]

    def shares_silicon_with(self, other: ProcessorCosts) -> bool:
        """Whether the two can never be busy at once."""
        return shared(self.processor.describe().resources, other.processor.describe().resources)

    def _fit(self) -> None:
        """Train the regression, if more is measured than when it was: that takes a second."""
        if self._fitted_entries != len(self.store.entries):
            entries = self.store.entries.items()
            self.fitted = fit({key: e for key, e in entries if not key.startswith(OWN_KEYS)})
            self._fitted_entries = len(entries)


def measure(
    calls: Sequence[OpCall],
    costs: Sequence[ProcessorCosts],
    seconds: float,
    observe: Observer,
    refresh: bool = False,
) -> None:
    """Measure links, then calls on every processor that supports them, until ``seconds`` are over.

    At last, if there is time, how processors slow each other down that can be busy at once. The
    calls that take most of the model's time by their roofline come first, so that a small budget
    goes where it matters; no ``seconds``, no measurement. What the stores have is not measured
    again unless ``refresh``. Ctrl-C keeps what was measured.
    """
    began = time.perf_counter()
    try:
        for each in costs:
            if seconds > 0 and (refresh or each.link().source != MEASURED):
                _measure_link(each)
        for each, other in itertools.permutations(costs, 2):
            known = each.store.get(_pair_key(HANDOVER, other)) is not None and not refresh
            if seconds > 0 and not known:
                _measure_handover(each, other)
        for each, call in _worklist(calls, costs, refresh):
            passed = time.perf_counter() - began
            if passed >= seconds:
                break
            observe(passed, f"{call.identifier} on {each.name}")
            _measure_call(each, call)
        for victim, other in itertools.permutations(costs, 2):
            passed = time.perf_counter() - began
            known = victim.store.get(_pair_key(SLOWDOWN, other)) is not None and not refresh
            if passed < seconds and not known and not victim.shares_silicon_with(other):
                observe(passed, f"{victim.name} while {other.name} is busy")
                _measure_slowdown(calls, victim, other)
    finally:
        for each in costs:
            each.store.save()


def _worklist(
    calls: Sequence[OpCall], costs: Sequence[ProcessorCosts], refresh: bool
) -> list[tuple[ProcessorCosts, OpCall]]:
    """Pairs to measure: calls by their share of a run, each on every processor."""
    counts = Counter(call_key(call) for call in calls)
    distinct = {call_key(call): call for call in calls if not opdef(call).view}
    share = {
        key: counts[key] * max(roofline_us(call, each.rates) for each in costs)
        for key, call in distinct.items()
    }
    return [
        (each, distinct[key])
        for key in sorted(share, key=lambda key: -share[key])
        for each in costs
        if each.processor.supports(distinct[key]).yes
        and (refresh or each.measured(distinct[key]) is None)
    ]


def _measure_call(costs: ProcessorCosts, call: OpCall) -> None:
    key = call_key(call)
    try:
        found = measure_call(costs.processor, call)
    except CoexecError as error:
        costs.failed[key] = str(error)
        log.warning("%s not measured: %s", call.identifier, error)
        return
    costs.store.put(key, Entry(found, call.identifier, features(call), costs.code(call)))


def _measure_link(costs: ProcessorCosts) -> None:
    try:
        link = measure_link(costs.processor)
    except CoexecError as error:
        costs.failed[LINK] = str(error)
        log.warning("the link of %s not measured: %s", costs.name, error)
        return
    for key, line in zip(LINKS, (link.write, link.read), strict=True):
        costs.store.put(key, Entry(line.latency, "", (line.us_per_byte,)))


def _measure_handover(source: ProcessorCosts, target: ProcessorCosts) -> None:
    try:
        found = measure_handover(source.processor, target.processor)
    except CoexecError as error:
        source.failed[_pair_key(HANDOVER, target)] = str(error)
        log.warning("%s to %s not measured: %s", source.name, target.name, error)
        return
    if found is not None:
        source.store.put(_pair_key(HANDOVER, target), Entry(found))


def _pair_key(kind: str, other: ProcessorCosts) -> str:
    described = other.processor.describe()
    return f"{kind} {described.name} {described.driver}"


def _measure_slowdown(
    calls: Sequence[OpCall], victim: ProcessorCosts, other: ProcessorCosts
) -> None:
    """Each processor repeats the measured call that takes most of the model's time there."""
    heaviest = [_heaviest(calls, each) for each in (victim, other)]
    if None in heaviest:
        return
    runs = [
        prepare_call(each.processor, call)
        for each, call in zip((victim, other), heaviest, strict=True)
        if call is not None
    ]
    own, others = runs
    found = slowdown(lambda: own().duration_ns / 1e3, others)
    victim.store.put(_pair_key(SLOWDOWN, other), Entry(found.time, "", (found.factor,)))


def _heaviest(calls: Sequence[OpCall], costs: ProcessorCosts) -> OpCall | None:
    counts = Counter(call_key(call) for call in calls)
    measured = {
        call_key(call): (counts[call_key(call)] * entry.time.median_us, call)
        for call in calls
        if (entry := costs.measured(call)) is not None
    }
    return max(measured.values(), key=lambda pair: pair[0], default=(0.0, None))[1]
