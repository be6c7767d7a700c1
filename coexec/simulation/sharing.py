"""Shared memory bandwidth: max-min fair shares of what all units want at once.

Whoever wants less than an equal share gets what it wants; the others divide the rest equally
(progressive filling: Bertsekas and Gallager, "Data Networks", section 6.5.2). Memory controllers
arbitrate between clients about so; which client a real one prefers is not published.
"""

from __future__ import annotations

from collections.abc import Sequence


def max_min_shares(demands: Sequence[float], capacity: float) -> list[float]:
    """Shares (same unit as ``demands`` and ``capacity``): none above its demand or all above it.

    They add up to the smaller of ``capacity`` and the sum of the demands.
    """
    shares = [0.0] * len(demands)
    left, waiting = capacity, len(demands)
    for index in sorted(range(len(demands)), key=demands.__getitem__):
        shares[index] = min(demands[index], left / waiting)
        left -= shares[index]
        waiting -= 1
    return shares
