"""Where the lanes of one run meet: tensors that they wait for, gates, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Condition
from typing import NamedTuple

from coexec.core.processor import Runner, Ticket
from coexec.core.types import Array
from coexec.runtime.idle import Idle
from coexec.runtime.run import Gate
from coexec.runtime.script import Script, Tape


class Arrival(NamedTuple):
    """A tensor on its way to the host, and the ticket of the copy that brings it.

    ``number`` counts the copies of a lane: its processor works in order, so that one of them also
    tells of those before. ``behind`` is work of the caller's that comes before its turn.
    """

    array: Array
    runner: Runner
    ticket: Ticket
    number: int = 0
    behind: Ticket | None = None


class Stopped(Exception):
    """Leaves a lane because another one failed."""


class Meeting:
    """What the lanes of one run tell each other: tensors, gates, the first failure.

    Without ``threads``, what one expects has been announced. ``ahead``: work may be handed over
    that follows what the caller has not done yet.
    """

    def __init__(
        self, lanes: int, gate: Gate | None, *, threads: bool, ahead: bool = False
    ) -> None:
        self.gate = gate
        self.threads = threads
        self.ahead = ahead
        self.arrivals: dict[str, Arrival] = {}
        self.whole: dict[str, Array] = {}
        self.idle = Idle()
        # What is noted to be repeated, or is repeated.
        self.tape: Tape | None = None
        self.script: Script | None = None
        self.failure: BaseException | None = None
        self._lanes = lanes
        self._here: Counter[int] = Counter()
        self._changed = Condition()

    def announce(self, tensor: str, arrival: Arrival) -> None:
        """A copy to the host was started."""
        if not self.threads:
            self.arrivals[tensor] = arrival
            return
        with self._changed:
            self.arrivals[tensor] = arrival
            self._changed.notify_all()

    def expect(self, tensor: str) -> Arrival:
        """The copy of a tensor, once it was started."""
        if not self.threads:
            return self.arrivals[tensor]
        with self._changed:
            self._wait(lambda: tensor in self.arrivals)
            return self.arrivals[tensor]

    def pass_gate(self, number: int) -> None:
        """Wait for every lane at gate ``number``; the last to come asks whether to go on."""
        with self._changed:
            self._here[number] += 1
            if self._here[number] == self._lanes:
                self.ask()
            self._changed.notify_all()
            self._wait(lambda: self._here[number] == self._lanes)

    def ask(self) -> None:
        """Let the caller look at what was read; an exception from it ends the run."""
        if self.gate is not None:
            self.gate({name: arrival.array for name, arrival in self.arrivals.items()})

    def fail(self, error: BaseException) -> None:
        """Keep the first failure and release whoever waits."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: condition() or self.failure is not None)
        if self.failure is not None:
            raise Stopped
