"""In order of arrival, each request to the processor where it is expected to end first.

The time until that processor is free counts, so that a request may wait for a fast one. Source:
"minimum completion time" of Maheswaran et al., "Dynamic mapping of a class of independent tasks
onto heterogeneous computing systems" (1999); the scheduler of this name in Jeong et al., "Band:
coordinated multi-DNN inference on heterogeneous mobile processors" (2022), takes the longest of a
window first, which here ``heft`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from coexec.serving.booking import Calendar
from coexec.serving.request import Choice, Request


def shortest_expected_latency(
    now: float, queue: Sequence[Request], free: Sequence[float]
) -> list[Choice]:
    """First come, first booked."""
    return Calendar(now, free).book_all(queue)
