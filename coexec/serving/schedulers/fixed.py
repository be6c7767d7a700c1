"""Each model on its own processor, in order of arrival: what apps do that ask for "the GPU"."""

from __future__ import annotations

from collections.abc import Sequence

from coexec.serving.booking import Calendar
from coexec.serving.request import Choice, Option, Request


def fixed(now: float, queue: Sequence[Request], free: Sequence[float]) -> list[Choice]:
    """To the processor that the workload names, else where the model is fastest alone."""
    return Calendar(now, free).book_all(queue, _own)


def _own(request: Request) -> Option:
    home = request.service.home
    there = [option for option in request.options if option.processors[0] == home]
    return min(there or request.options, key=lambda option: option.ms)
