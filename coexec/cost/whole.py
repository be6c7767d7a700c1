"""What runs of whole programs took, beside what was predicted of them.

Calls are measured one by one, and a program is not their sum: neighbours are fused, layouts and
caches stay as they are, processors compete with each other and with the host for cores. A program
that was run says by how much. That is kept among the times of its calls and corrects predictions
of the same program from then on. Of one that never ran, the median of others of its kind and of
about as many calls does, if there are some: on one pair of processors, what is overlooked of one is
mostly so of another. (Of a network it is what it takes to go from call to call: not so of a layer.)
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.key import call_key
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import Entry

WHOLE = "#program of calls by traces"
"""Keys of entries begin so; it names what factors are made of. Features: the factor, the time of
each call, what was predicted, and how many calls the program has."""
ALONE = "alone"
"""All on one processor; other ways are those of plans on several."""
INFERENCE, STEP = "inference", "step"
LEAST_PROGRAMS = 3
"""Of so many others a median is taken for a program that never ran."""
LEAST_US = 2000.0
"""Shorter ones say nothing of calls or of others: much of their time is the host's."""
LEAST_CALLS = 8
"""Programs of fewer calls say nothing of others, nor others of them: what of them is overlooked are
their ways to the host, each its own, and not what passes from call to call."""
ALIKE = 4.0
"""Programs of more than so many times as many calls, or less, say nothing of each other."""
LEAST_FACTOR = 0.05
"""A time is never corrected to nothing."""


@dataclass(frozen=True)
class Correction:
    """How many times longer than predicted something takes, and ``each_us`` more for every call.

    ``programs`` is of how many others that is; 0: the very same was run.
    """

    factor: float
    each_us: float = 0.0
    programs: int = 0


@dataclass(frozen=True)
class Program:
    """What is run: its calls in their order, as an inference or a step of a training."""

    calls: tuple[OpCall, ...]
    kind: str

    @property
    def digest(self) -> str:
        """The same for programs of equal calls."""
        return _digest(call_key(call) for call in self.calls)

    def code(self, team: Sequence[ProcessorCosts]) -> str:
        """Of what executes the calls; a time does not hold for other code."""
        return _digest(
            each.code(call)
            for each, call in itertools.product(team, self.calls)
            if each.processor.supports(call).yes
        )


def learn(
    team: Sequence[ProcessorCosts],
    program: Program,
    way: str,
    time: Distribution,
    found: Correction,
    predicted_us: float,
    handed: str = "",
) -> None:
    """Keep by what a run on ``team`` corrects the prediction of it without that.

    ``handed`` is of the code that hands regions over, if there are several processors.
    """
    features = (found.factor, found.each_us, predicted_us, float(len(program.calls)))
    entry = Entry(time, "", features, program.code(team) + handed)
    team[0].store.put(_prefix(team, program, way) + program.digest, entry)


def correction(
    team: Sequence[ProcessorCosts],
    program: Program,
    way: str,
    predicted_us: float,
    handed: str = "",
) -> Correction | None:
    """What runs say of ``program`` on ``team``; nothing if none says anything.

    Of runs that other code ``handed`` over, none does: what it takes is what factors are made of.

    ``predicted_us`` is what is predicted now. Alone, what was measured counts: the factor is larger
    by what less is predicted. On several processors it is another plan, for which the factor holds.
    """
    store, prefix = team[0].store, _prefix(team, program, way)
    own = store.get(prefix + program.digest)
    if own is not None and own.code == program.code(team) + handed:
        factor, each_us, then_us, _ = own.features
        same = then_us / predicted_us if way == ALONE and predicted_us > 0 else 1.0
        return Correction(factor * same, each_us)
    count = len(program.calls)
    if predicted_us < LEAST_US or count < LEAST_CALLS:
        return None
    others = [
        entry.features
        for key, entry in store.entries.items()
        if key.startswith(prefix)
        and entry.code.endswith(handed)
        and entry.time.median_us >= LEAST_US
        and max(count / ALIKE, LEAST_CALLS) <= entry.features[3] <= count * ALIKE
    ]
    if len(others) < LEAST_PROGRAMS:
        return None
    factor, each_us = (median(features[place] for features in others) for place in (0, 1))
    return Correction(factor, each_us, len(others))


def _prefix(team: Sequence[ProcessorCosts], program: Program, way: str) -> str:
    others = (each.processor.describe() for each in team[1:])
    return " ".join([WHOLE, program.kind, way, *(f"{one.name} {one.driver}" for one in others), ""])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
