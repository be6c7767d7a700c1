"""The request with the least time to spare first, to whichever idle processor ends it first.

Slack is the time until the deadline less the shortest time that the request can still take. Source:
Jeong et al., "Band: coordinated multi-DNN inference on heterogeneous mobile processors" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence

from coexec.serving.booking import Calendar
from coexec.serving.request import Choice, Request


def least_slack(now: float, queue: Sequence[Request], free: Sequence[float]) -> list[Choice]:
    """No processor idles while a request waits that it takes; without deadlines, first come."""
    calendar = Calendar(now, free)
    for request in sorted(queue, key=lambda each: each.due_ms - each.least_ms):
        idle = [option for option in request.options if calendar.start(option) <= now]
        if idle:
            calendar.book(request, calendar.soonest(idle))
    return calendar.choices
