"""Heterogeneous earliest finish time with reservation, for requests that keep coming.

Topcuoglu et al. (2002): the task with the longest way to its end first, where it ends first. A
request that ends sooner on a busy processor reserves it and waits, as in Jeong et al., "Band"
(2022). Ours: the time that a request has waited counts as part of its way, or long ones that keep
coming would starve the short ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from coexec.serving.booking import Calendar
from coexec.serving.request import Choice, Request


def heft(now: float, queue: Sequence[Request], free: Sequence[float]) -> list[Choice]:
    """By mean time of what is left plus time waited, longest first; busy processors are booked."""

    def rank(request: Request) -> float:
        return request.service.mean_ms(request.step) + now - request.arrived_ms

    return Calendar(now, free).book_all(sorted(queue, key=rank, reverse=True))
