"""One question: what does this node cost there? Measured, else fitted, else roofline."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

from coexec.core.machine import Rates
from coexec.core.processor import Processor
from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.fitted import FittedCosts, fit
from coexec.cost.key import call_key
from coexec.cost.roofline import roofline_us
from coexec.cost.silicon import shared
from coexec.cost.store import CostStore, Entry
from coexec.cost.transfer import HostLink, Line, between, link_from_rates
from coexec.ops.table import opdef

log = logging.getLogger(__name__)
MEASURED, FITTED, ROOFLINE, VIEW = "measured", "fitted", "roofline", "view"
FUSED = "fused"
LINKS = ("#write past all caches", "#read past all caches")
"""Keys of the host's link among a processor's times; time per byte stands in the features."""
SLOWDOWN = "#slowdown beside many at once"
"""Key, with names behind it, of how another processor slows this one down: the only feature.
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
    """A time and where it is from: ``measured``, ``fitted``, ``roofline``.

    ``view``: it is nothing; ``fused``: the time of another node has that of this one in it.
    """

    time: Distribution
    source: str


@dataclass
class ProcessorCosts:
    """Costs on one processor. ``failed`` are calls that it supports by its word and does not run.

    ``rates`` are its measured limits. ``fitted`` is there once a call was asked for that was not
    measured. Times that were measured with other kernels or tuned values are forgotten.
    """

    processor: Processor
    rates: Rates
    store: CostStore
    fitted: FittedCosts | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _fitted_entries: int = -1
    _codes: dict[str, str] = field(default_factory=dict)

    @cached_property
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
        if opdef(call.like or call).view:
            return Cost(Distribution.exactly(0.0), VIEW)
        entry = self.measured(call)
        if entry is not None:
            return Cost(entry.time, MEASURED)
        self._fit()
        predicted = self.fitted.predict(call, self.rates) if self.fitted is not None else None
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
        entry = self.store.get(pair_key(HANDOVER, other))
        return between(self.link(), other.link()) if entry is None else Line(entry.time, 0.0)

    def exchange_us(self, other: ProcessorCosts) -> float | None:
        """The host's time for letting ``other`` go on with a result of this; none if not measured.

        A launch of what goes on is not in it.
        """
        entry = self.exchange(other)
        return None if entry is None else entry.time.median_us

    def exchange(self, other: ProcessorCosts) -> Entry | None:
        """What :meth:`exchange_us` tells, as it was measured."""
        return self.store.get(pair_key(EXCHANGE, other))

    def learn_exchange(self, other: ProcessorCosts, found: Entry) -> None:
        """Keep that."""
        self.store.put(pair_key(EXCHANGE, other), found)

    def slowdown(self, other: ProcessorCosts, calls: Sequence[OpCall]) -> float:
        """How many times longer ``calls`` take here while ``other`` is busy with them.

        By what takes most of their time on each; if nobody measured that, as most other work is.
        """
        own, others = heaviest(calls, self), heaviest(calls, other)
        if own is not None and others is not None:
            entry = self.store.get(slowdown_key(other, own, others))
            if entry is not None:
                return entry.features[0]
        prefix = pair_key(SLOWDOWN, other)
        known = [e.features[0] for key, e in self.store.entries.items() if key.startswith(prefix)]
        return median(known) if known else 1.0

    def shares_silicon_with(self, other: ProcessorCosts) -> bool:
        """Whether the two can never be busy at once."""
        return shared(self.processor.describe().resources, other.processor.describe().resources)

    def _fit(self) -> None:
        """Train the regression, if more is measured than when it was: that takes a second."""
        if self._fitted_entries != len(self.store.entries):
            entries = self.store.entries.items()
            calls = {key: e for key, e in entries if not key.startswith(OWN_KEYS)}
            self.fitted = fit(calls, self.rates, self.store.path.with_suffix(".trees.npz"))
            self._fitted_entries = len(entries)


def heaviest(calls: Sequence[OpCall], costs: ProcessorCosts) -> OpCall | None:
    """The measured call that takes most of the time of all of them there."""
    counts = Counter(call_key(call) for call in calls)
    measured = {
        call_key(call): (counts[call_key(call)] * entry.time.median_us, call)
        for call in calls
        if (entry := costs.measured(call)) is not None
    }
    return max(measured.values(), key=lambda pair: pair[0], default=(0.0, None))[1]


def pair_key(kind: str, other: ProcessorCosts) -> str:
    """The key of what is measured between a processor and another one."""
    described = other.processor.describe()
    return f"{kind} {described.name} {described.driver}"


def slowdown_key(other: ProcessorCosts, own: OpCall, others: OpCall) -> str:
    """The key of how much longer a call takes while another one runs on ``other``."""
    calls = hashlib.sha256(f"{call_key(own)}\n{call_key(others)}".encode()).hexdigest()[:16]
    return f"{pair_key(SLOWDOWN, other)} {calls}"
