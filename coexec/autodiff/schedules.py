"""Learning-rate schedules: functions of the step number, evaluated on the host."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from coexec.base.arguments import check_count, check_number


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
        return self.final + (self.rate - self.final) * (1 + math.cos(math.pi * progress)) / 2


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
