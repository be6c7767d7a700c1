"""Learning-rate schedules: functions of the step number, evaluated on the host."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from coexec.base.arguments import check_count, check_number
from coexec.base.errors import UsageError


class Schedule(ABC):
    """A learning rate that depends on the step (0 for the first)."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Learning rate of a step."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate always."""

    rate: float

    def __post_init__(self) -> None:
        check_number("rate", self.rate)

    def at(self, step: int) -> float:
        return self.rate


@dataclass(frozen=True)
class StepDecay(Schedule):
    """``rate`` times ``factor`` after every ``every`` steps."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_number("rate", self.rate)
        check_count("every", self.every)
        check_number("factor", self.factor)

    def at(self, step: int) -> float:
        return self.rate * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From ``rate`` to ``final`` in ``steps`` steps along half a cosine (Loshchilov, 2017)."""

    rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("rate", self.rate)
        check_count("steps", self.steps)
        check_number("final", self.final)

    def at(self, step: int) -> float:
        progress = min(step / self.steps, 1.0)
        return _along_cosine(self.rate, self.final, progress)


@dataclass(frozen=True)
class Linear(Schedule):
    """From ``rate`` to ``final`` in ``steps`` steps along a line."""

    rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("rate", self.rate)
        check_count("steps", self.steps)
        check_number("final", self.final)

    def at(self, step: int) -> float:
        return self.rate + (self.final - self.rate) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to ``rate`` and down again within ``steps`` steps, along half cosines.

    From ``rate / first`` in a ``rise`` of all steps, then to ``rate / first / last``. Source: Smith
    and Topin, "Super-convergence", 2017 (arXiv 1708.07120), in the form of PyTorch's
    ``OneCycleLR``; its momentum does not cycle.
    """

    rate: float
    steps: int
    rise: float = 0.3
    first: float = 25.0
    last: float = 1e4

    def __post_init__(self) -> None:
        check_number("rate", self.rate)
        check_count("steps", self.steps)
        check_number("rise", self.rise, below=1)
        for name in ("first", "last"):
            check_number(name, getattr(self, name))
            if not getattr(self, name):
                raise UsageError(f"{name} is 0; it divides the rate")

    def at(self, step: int) -> float:
        begin, top, end = self.rate / self.first, self.rise * self.steps - 1, self.steps - 1
        if step <= top:
            return _along_cosine(begin, self.rate, step / top if top else 1.0)
        after = (step - top) / (end - top) if end > top else 1.0
        return _along_cosine(self.rate, begin / self.last, min(after, 1.0))


def _along_cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Warmup(Schedule):
    """Linear from 0 in ``steps`` steps, then another schedule, which starts at its own step 0."""

    then: Schedule
    steps: int

    def __post_init__(self) -> None:
        check_count("steps", self.steps)

    def at(self, step: int) -> float:
        if step < self.steps:
            return self.then.at(0) * (step + 1) / self.steps
        return self.then.at(step - self.steps)
