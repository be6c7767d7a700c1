"""Divide the batch: how many samples each processor takes, and where parameters are updated.

Time grows with the number of samples, so that shares are in inverse proportion to the time of the
whole batch; what a division really leads to tells its timeline, and that corrects the shares.
Every processor sends its share of each gradient to where the parameter lives, and gets the new
parameter from there: who has more samples also updates more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coexec.placement.problem import Problem

LEAST_BYTES = 1 << 16
"""Smaller results are updated where the loss is: moving them takes as long as making them."""


def team(problem: Problem) -> tuple[int, ...]:
    """Processors that can be busy at once, the fastest first; those that refuse nothing."""
    whole = problem.time_us.sum(axis=0)
    chosen: list[int] = []
    taken: set[int] = set()
    for unit in np.argsort(whole, kind="stable").tolist():
        if np.isfinite(whole[unit]) and taken.isdisjoint(problem.resources[unit]):
            chosen.append(unit)
            taken.update(problem.resources[unit])
    return tuple(chosen)


def balanced_rows(whole_us: Mapping[str, float], rows: int) -> dict[str, int]:
    """Samples by processor, one at least: all end together if time is proportional to them.

    ``whole_us`` is what each processor takes for all samples.
    """
    rates = {name: 1.0 / max(time, 1e-9) for name, time in whole_us.items()}
    total = sum(rates.values())
    exact = {name: rate / total * rows for name, rate in rates.items()}
    found = {name: max(int(share), 1) for name, share in exact.items()}
    while sum(found.values()) < rows:
        found[max(found, key=lambda name: exact[name] - found[name])] += 1
    while sum(found.values()) > rows:
        found[max(found, key=lambda name: found[name] - exact[name])] -= 1
    return found


def corrected_rows(rows: Mapping[str, int], busy_us: Mapping[str, float]) -> dict[str, int]:
    """Samples after a look at how long each processor was busy with those that it had."""
    whole = {name: busy_us[name] / count for name, count in rows.items()}
    return balanced_rows(whole, sum(rows.values()))


def homes(nbytes: Sequence[int], rows: Mapping[str, int], first: str) -> tuple[str, ...]:
    """Where results of these sizes are made, in proportion to ``rows``; small ones on ``first``."""
    load = dict.fromkeys(rows, 0.0)
    found = []
    for size in nbytes:
        name = first
        if size >= LEAST_BYTES:
            name = min(load, key=lambda each: (load[each] + size) / rows[each])
        load[name] += size
        found.append(name)
    return tuple(found)
