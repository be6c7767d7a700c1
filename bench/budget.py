"""A run keeps its time: what is left is shared among the cases that are left, by their work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.case import Case, Suite

CALL = 4e9
"""Work, in operations, that costs about as much time as preparing a case on everybody."""


def weight(suite: Suite, cases: Sequence[Case], case: Case) -> float:
    """Share of the suite's minutes that is a case's; over the cases they add up to the minutes."""
    work = {c.name: 1 + c.flop / CALL for c in cases}
    return suite.minutes * work[case.name] / sum(work.values())


@dataclass
class Budget:
    """Seconds of a run; ``shares`` are the weights of the cases that it has not begun."""

    seconds: float
    shares: dict[tuple[str, str], float]
    begin: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, seconds: float, chosen: Mapping[str, tuple[Suite, Sequence[Case]]]) -> Budget:
        """For the cases of some suites, by the suites' names."""
        shares = {
            (name, case.name): weight(suite, cases, case)
            for name, (suite, cases) in chosen.items()
            for case in cases
        }
        return cls(seconds, shares)

    @property
    def left(self) -> float:
        """Seconds until the run should end; negative after that."""
        return self.begin + self.seconds - time.monotonic()

    def deadline(self, suite: str, case: str) -> float:
        """When (``time.monotonic``) a case that begins now should be done. Asked once a case."""
        everything = sum(self.shares.values())
        share = self.shares.pop((suite, case))
        return time.monotonic() + max(self.left, 0.0) * share / everything
