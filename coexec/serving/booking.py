"""A calendar of the processors in which schedulers book requests one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from coexec.serving.request import Choice, Option, Request


class Calendar:
    """When each processor is free, with what was booked so far; nothing goes into gaps."""

    def __init__(self, now: float, free: Sequence[float]) -> None:
        self.now = now
        self.free = [max(now, until) for until in free]
        self.choices: list[Choice] = []

    def start(self, option: Option) -> float:
        """Earliest start: when the last of its processors is free."""
        return max(self.free[processor] for processor in option.occupied)

    def soonest(self, options: Iterable[Option]) -> Option:
        """The option that ends first; of equal ones the first."""
        return min(options, key=lambda option: self.start(option) + option.ms)

    def book(self, request: Request, option: Option) -> None:
        """Occupy the option's processors; what starts now is a choice."""
        start = self.start(option)
        if start <= self.now:
            self.choices.append(Choice(request, option))
        for processor in option.occupied:
            self.free[processor] = start + option.ms

    def book_all(
        self, requests: Iterable[Request], pick: Callable[[Request], Option] | None = None
    ) -> list[Choice]:
        """Book requests in this order, each as ``pick`` says, else where it ends first.

        It stops when all processors are taken: what comes then cannot start now.
        """
        for request in requests:
            if min(self.free) > self.now:
                break
            self.book(request, pick(request) if pick else self.soonest(request.options))
        return self.choices
