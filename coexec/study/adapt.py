"""The plan that a model comes to which watches its processors and plans again, as adaptive runs do.

The same planner as in :mod:`coexec.planning.adapter`, without threads: in virtual time planning
takes none, and a result does not depend on how busy this machine is. When to plan again is the
rule of :class:`coexec.runtime.adapt.Drift`. What is measured afterwards is the plan that was come
to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coexec.core.events import Trace
from coexec.placement.policies.table import AUTO
from coexec.processors.simulated.phone import Phone
from coexec.runtime.adapt import DEFAULT, Drift, busy_us
from coexec.study.plans import Desk, Placed
from coexec.study.serve import Running, begin_beside, lead_in

LONGEST = 6
"""Runs of a plan that are watched: as many without a reason to plan again, and it stays."""
ROUNDS = 6
"""Plans at most: what is known of processors stays, so that each of the few is tried about once."""
Stage = Callable[[Placed], tuple[Phone, Running, Sequence[Running]]]
"""A phone under the condition with the model as it is placed, and what runs beside it."""


@dataclass(frozen=True)
class Adapted:
    """The plan at last, and how often another one was taken over on the way there."""

    placed: Placed
    replanned: int


def adapt(desk: Desk, stage: Stage, lead_in_s: float = 0.0) -> Adapted:
    """Begin with what ``auto`` plans for an idle phone, and follow what processors take.

    Each plan is watched after it has run for ``lead_in_s``, as plans are that are served: watched
    from the start, a hot phone still has the clocks of a cold one.
    """
    placed, replanned = desk.placed(AUTO), 0
    factors = dict.fromkeys(placed.busy_us, 1.0)
    for _ in range(ROUNDS):
        seen = _drift(placed, lead_in_s, *stage(placed))
        if seen is None:
            break
        factors = {name: factor * seen.get(name, 1.0) for name, factor in factors.items()}
        other = desk.slowed(factors)
        if other.key == placed.key:
            break
        placed, replanned = other, replanned + 1
    return Adapted(placed, replanned)


def _drift(
    placed: Placed, lead_in_s: float, phone: Phone, main: Running, others: Sequence[Running]
) -> dict[str, float] | None:
    """How many times longer than predicted processors take, once that asks for another plan."""
    drift = Drift(placed.busy_us, DEFAULT)
    lead_in(phone, main, lead_in_s)
    begin_beside(phone, others, [])
    for _ in range(LONGEST):
        trace = Trace()
        main.executor.run(main.feeds, trace=trace)
        if drift.observe(busy_us(trace.events)):
            return drift.factors
    return None
