"""Costs of processors that predict their own times: what is simulated need not be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from coexec.core.machine import Rates
from coexec.core.types import OpCall
from coexec.cost.distribution import Distribution
from coexec.cost.key import call_key
from coexec.cost.model import VIEW, Cost, ProcessorCosts
from coexec.cost.store import Entry
from coexec.cost.transfer import HostLink
from coexec.ops.table import opdef

PREDICTED = "predicted"


class Predicting(ABC):
    """What a processor knows of its own times."""

    @abstractmethod
    def rates(self) -> Rates:
        """Its limits."""

    @abstractmethod
    def predicted(self, call: OpCall, *, alone: bool = False) -> Distribution:
        """Time of a supported call among others; ``alone``: in a kernel of its own."""

    @abstractmethod
    def predicted_link(self) -> HostLink:
        """The way to the host and back."""

    @abstractmethod
    def predicted_start(self) -> Distribution:
        """Time of a launch before its first call: :meth:`predicted_link` has it in each write."""

    @abstractmethod
    def predicted_copies(self) -> HostLink:
        """What of :meth:`predicted_link` the processor is occupied for."""

    @abstractmethod
    def traffic_gbps(self, call: OpCall) -> float:
        """Memory bandwidth that a call takes while it runs."""

    @abstractmethod
    def slowdown_beside(self, own_gbps: float, others_gbps: float) -> float:
        """How many times longer work of one bandwidth takes while another one is used up."""


@dataclass
class PredictedCosts(ProcessorCosts):
    """Costs of a processor that predicts them; nothing is measured or stored."""

    _asked: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def predicting(self) -> Predicting:
        assert isinstance(self.processor, Predicting)
        return self.processor

    def cost(self, call: OpCall) -> Cost:
        if opdef(call).view:
            return Cost(Distribution.exactly(0.0), VIEW)
        time = self.predicting.predicted(call)
        self._asked[call_key(call)] = (time.median_us, self.predicting.traffic_gbps(call))
        return Cost(time, PREDICTED)

    def cost_alone(self, call: OpCall) -> Cost:
        if opdef(call).view:
            return self.cost(call)
        time = self.predicting.predicted(call, alone=True)
        self._asked[call_key(call)] = (time.median_us, self.predicting.traffic_gbps(call))
        return Cost(time, PREDICTED)

    def measured(self, call: OpCall) -> Entry | None:
        """The prediction in place of a measurement."""
        return Entry(self.predicting.predicted(call), call.identifier)

    @property
    def restart_us(self) -> float:
        return self.predicting.predicted_start().median_us

    @property
    def copies(self) -> tuple[tuple[float, float], tuple[float, float]]:
        both = self.predicting.predicted_copies()
        read, write = (
            (line.latency.median_us, line.us_per_byte) for line in (both.read, both.write)
        )
        return read, write

    def link(self) -> HostLink:
        return self.predicting.predicted_link()

    def slowdown(self, other: ProcessorCosts, calls: Sequence[OpCall]) -> float:
        """By the mean bandwidth of the calls that each of the two was asked about."""
        if not isinstance(other, PredictedCosts):
            return 1.0
        return self.predicting.slowdown_beside(self.mean_gbps, other.mean_gbps)

    @property
    def mean_gbps(self) -> float:
        """Memory traffic of the calls that were asked about, over their time."""
        total_us = sum(us for us, _ in self._asked.values())
        moved = sum(us * gbps for us, gbps in self._asked.values())
        return moved / total_us if total_us else 0.0
