"""Measuring what is not known yet of calls and of the ways between processors.

A second that was disturbed must not be kept for ever. Of several visits the middle one counts (the
fastest of five of a call lay 5 to 12 % below what the same kernels take in runs, on a machine that
is faster in some seconds than in others; the fastest of a way may be nothing). What varied more
than on a quiet machine is visited again once all else is measured, and when the next plan is made,
a few times in all. What plans depend on most is visited more than once in any case: calls that take
much of a model's time, and ways to other processors, now and when next plans are made. (A call of 7
ms took 8.8 for a whole second, hardly varying: on a shared machine the spread does not tell all.)
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from coexec.base.errors import CoexecError
from coexec.core.types import OpCall
from coexec.cost.contention import slowdown
from coexec.cost.fitted import features
from coexec.cost.key import call_key
from coexec.cost.measured import (
    FEW_BYTES,
    Sweep,
    measure_call,
    prepare_busy,
    prepare_call,
    sweep_of,
)
from coexec.cost.model import (
    HANDOVER,
    LINKS,
    MEASURED,
    Observer,
    ProcessorCosts,
    heaviest,
    pair_key,
    slowdown_key,
)
from coexec.cost.roofline import roofline_us
from coexec.cost.store import CostStore, Entry
from coexec.cost.transfer import measure_handover, measure_link
from coexec.ops.table import opdef

log = logging.getLogger(__name__)
LINK = "link"
"""Stands among the calls that failed if the link could not be measured."""
LEAST_VISITS, WAY_VISITS = 2, 20
"""Of exchanges, and of ways between processors and the host, one for each plan: they take little
time. (How long a thread takes to wake differs from process to process: 0.04 to 0.4 ms with one
runtime.)"""
HEAVY, HEAVY_VISITS = 0.02, 5
"""The share of the time of all calls together from which on one is visited so often."""
DOUBTED_VISITS, NEAR = 12, 0.02
"""Visits at most of a heavy call whose time runs contradict; what is so near to it is no change."""
NOBODYS: Mapping[str, Sequence[OpCall]] = MappingProxyType({})
Work = tuple[ProcessorCosts, OpCall]
Kept = Callable[[Entry, Entry], Entry]
"""What is kept of an earlier visit and another one."""


def measure(
    calls: Sequence[OpCall],
    costs: Sequence[ProcessorCosts],
    seconds: float,
    observe: Observer,
    refresh: bool = False,
    *,
    beside: bool = True,
    own: Mapping[str, Sequence[OpCall]] = NOBODYS,
) -> None:
    """Measure links, then calls on every processor that supports them, until ``seconds`` are over.

    At last, if there is time, what may have been disturbed, and (``beside``) how processors slow
    each other down that can be busy at once. The calls that take most of the model's time by their
    roofline come first, so that a small budget goes where it matters; no ``seconds``, no
    measurement. What the stores have and are sure of is not measured again unless ``refresh``.
    Ctrl-C keeps what was measured. ``own`` are the calls that a processor makes of them, by its
    name: they come first there, for it computes the others only where a plan divides them.
    """
    if seconds > 0:
        _Measuring(calls, costs, seconds, observe, own).run(refresh, beside=beside)


def measure_doubted(calls: Sequence[OpCall], costs: ProcessorCosts, seconds: float) -> bool:
    """Visit those of ``calls`` again that take much of their time, as a run of all took less.

    Whether that changed what is known of any. Each is visited :data:`DOUBTED_VISITS` times at most.
    """
    measuring = _Measuring(calls, [costs], seconds, lambda _seconds, _text: None)
    work = [
        (each, call) for each, call, entry in measuring.heavy() if entry.visits < DOUBTED_VISITS
    ]
    before = [costs.cost(call).time.median_us for _, call in work]
    measuring.visit(work, Entry.or_quieter)
    costs.store.save()
    return any(
        costs.cost(call).time.median_us < (1 - NEAR) * us
        for (_, call), us in zip(work, before, strict=True)
    )


class _Measuring:
    """Measuring within a time; pairs are a processor's costs and a call."""

    def __init__(
        self,
        calls: Sequence[OpCall],
        costs: Sequence[ProcessorCosts],
        seconds: float,
        observe: Observer,
        own: Mapping[str, Sequence[OpCall]] = NOBODYS,
    ) -> None:
        self.calls, self.costs, self.own = calls, costs, own
        self.seconds, self.observe = seconds, observe
        self.sweeps: dict[str, Sweep | None] = {}
        self.began = time.perf_counter()

    def run(self, refresh: bool, *, beside: bool) -> None:
        """Measure what :func:`measure` says."""
        try:
            self._ways(first=True, refresh=refresh)
            self.visit(self._unknown(refresh), _only_now)
            self.visit(self._unsure(), Entry.or_usual)
            if beside:
                self._ways(first=False, refresh=False)
                self._slowdowns(refresh)
        finally:
            for each in self.costs:
                each.store.save()

    @property
    def passed(self) -> float:
        """Seconds since this began."""
        return time.perf_counter() - self.began

    def _ways(self, *, first: bool, refresh: bool) -> None:
        """Visit links and ways to others: those not known, or those that few visits know."""
        for each in self.costs:
            known = each.link().source == MEASURED and not refresh
            if known != first and (first or _wanted(each.store, LINKS[0])):
                _measure_link(each, refresh)
        for each, other in itertools.permutations(self.costs, 2):
            key = pair_key(HANDOVER, other)
            known = each.store.get(key) is not None and not refresh
            if known != first and (first or _wanted(each.store, key)):
                _measure_handover(each, other, refresh)

    def visit(self, work: Sequence[Work], kept: Kept) -> None:
        """Measure calls while there is time; ``kept`` is of what was known and what is now."""
        for each, call in work:
            passed = self.passed
            if passed >= self.seconds:
                break
            self.observe(passed, f"{call.identifier} on {each.name}")
            self._measure_call(each, call, kept)

    def _measure_call(self, costs: ProcessorCosts, call: OpCall, kept: Kept) -> None:
        key = call_key(call)
        try:
            found = measure_call(costs.processor, call, self._sweep(costs, call))
        except CoexecError as error:
            costs.failed[key] = str(error)
            log.warning("%s not measured: %s", call.identifier, error)
            return
        entry = Entry(found, call.identifier, features(call), costs.code(call))
        known = costs.measured(call)
        costs.store.put(key, entry if known is None else kept(known, entry))

    def _sweep(self, costs: ProcessorCosts, call: OpCall) -> Sweep | None:
        """What drives a call's constants out of a processor's caches, kept while this measures."""
        if sum(array.nbytes for array in call.constants.values()) < FEW_BYTES:
            return None
        if costs.name not in self.sweeps:
            try:
                self.sweeps[costs.name] = sweep_of(costs.processor)
            except CoexecError as error:
                self.sweeps[costs.name] = None
                log.warning("constants on %s may be in caches: %s", costs.name, error)
        return self.sweeps[costs.name]

    def _unknown(self, refresh: bool) -> list[Work]:
        """Pairs that are not known: calls by their share of a run, each on every processor."""
        return [
            (each, call) for each, call in self._able() if refresh or each.measured(call) is None
        ]

    def _unsure(self) -> list[Work]:
        """Pairs that may have been disturbed, and heavy ones with few visits, in the same order."""
        few = {
            (each.name, call_key(call))
            for each, call, entry in self.heavy()
            if entry.visits < HEAVY_VISITS
        }
        return [
            (each, call)
            for each, call, entry in self._known()
            if entry.unsure or (each.name, call_key(call)) in few
        ]

    def heavy(self) -> list[tuple[ProcessorCosts, OpCall, Entry]]:
        """Known pairs that take much of the time of all calls."""
        counts = {each.name: self._counts(each) for each in self.costs}
        known = [
            (each, call, entry, counts[each.name][call_key(call)] * entry.time.median_us)
            for each, call, entry in self._known()
        ]
        total_us = sum(us for *_, us in known) / len(self.costs)
        return [(each, call, entry) for each, call, entry, us in known if us > HEAVY * total_us]

    def _known(self) -> list[tuple[ProcessorCosts, OpCall, Entry]]:
        """Pairs that are known, as they were measured."""
        return [
            (each, call, entry)
            for each, call in self._able()
            if (entry := each.measured(call)) is not None
        ]

    def _able(self) -> Iterator[Work]:
        """Calls of different keys where they are supported, those first that take most of a run."""
        counts = {each.name: self._counts(each) for each in self.costs}
        share: dict[str, float] = {}
        distinct: dict[str, OpCall] = {}
        for each in self.costs:
            for call in (*self.own.get(each.name, ()), *self.calls):
                key = call_key(call)
                if not opdef(call.like or call).view:
                    us = counts[each.name][key] * roofline_us(call, each.rates)
                    share[key], distinct[key] = max(share.get(key, 0.0), us), call
        for key in sorted(share, key=lambda key: -share[key]):
            for each in self.costs:
                call = distinct[key]
                made_here = call.like is None or key in counts[each.name]
                if made_here and each.processor.supports(call).yes:
                    yield each, call

    def _counts(self, each: ProcessorCosts) -> Counter[str]:
        """How often a run has each call on a processor, by its key."""
        return Counter(map(call_key, self.own.get(each.name, self.calls)))

    def _slowdowns(self, refresh: bool) -> None:
        """Each processor repeats the measured call that takes most of the model's time there."""
        for victim, other in itertools.permutations(self.costs, 2):
            own, others = heaviest(self.calls, victim), heaviest(self.calls, other)
            if own is None or others is None or victim.shares_silicon_with(other):
                continue
            key = slowdown_key(other, own, others)
            passed = self.passed
            if passed < self.seconds and (refresh or victim.store.get(key) is None):
                self.observe(passed, f"{victim.name} while {other.name} is busy")
                _measure_slowdown(key, (victim, own), (other, others))


def _only_now(_known: Entry, found: Entry) -> Entry:
    return found


def _wanted(store: CostStore, key: str) -> bool:
    """Whether another visit may tell more of a way."""
    entry = store.get(key)
    return entry is not None and entry.visits < WAY_VISITS


def _measure_link(costs: ProcessorCosts, refresh: bool) -> None:
    try:
        link = measure_link(costs.processor)
    except CoexecError as error:
        costs.failed[LINK] = str(error)
        log.warning("the link of %s not measured: %s", costs.name, error)
        return
    for key, line in zip(LINKS, (link.write, link.read), strict=True):
        known = None if refresh else costs.store.get(key)
        rate = min(line.us_per_byte, known.features[0]) if known else line.us_per_byte
        entry = Entry(line.latency, "", (rate,))
        usual = known.or_usual(entry) if known else entry
        costs.store.put(key, replace(usual, features=(rate,)))


def _measure_handover(source: ProcessorCosts, target: ProcessorCosts, refresh: bool) -> None:
    key = pair_key(HANDOVER, target)
    try:
        found = measure_handover(source.processor, target.processor)
    except CoexecError as error:
        source.failed[key] = str(error)
        log.warning("%s to %s not measured: %s", source.name, target.name, error)
        return
    if found is not None:
        known = None if refresh else source.store.get(key)
        entry = Entry(found)
        source.store.put(key, known.or_usual(entry) if known else entry)


def _measure_slowdown(key: str, victim: Work, other: Work) -> None:
    own = prepare_call(victim[0].processor, victim[1])
    found = slowdown(lambda: own().duration_ns / 1e3, prepare_busy(other[0].processor, other[1]))
    victim[0].store.put(key, Entry(found.time, "", (found.factor,)))
