"""A simulated phone: one event simulation that all its processors share, and its virtual time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import simpy

from coexec.core.processor import Ticket
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc
from coexec.core.timeline import Signal, Thread, Timeline
from coexec.cost.distribution import Distribution
from coexec.processors.simulated.memory import PhoneMemory
from coexec.processors.simulated.tape import Hear, Learn, Note, Submit, Tape, Tell
from coexec.processors.simulated.ticket import SimulatedTicket
from coexec.simulation.condition import Condition, condition_named
from coexec.simulation.engine import Engine
from coexec.simulation.from_soc import device_of
from coexec.simulation.work import Job, Work


class Phone:
    """A system on chip under a condition. The same seed and calls give the same times.

    Without ``walled``, buffers may be larger than its memory (see :class:`PhoneMemory`). On a
    ``steady`` one nothing varies from run to run: all that is drawn is its median.
    """

    def __init__(
        self,
        soc: Soc,
        condition: Condition,
        seed: int = 0,
        walled: bool = True,
        steady: bool = False,
    ) -> None:
        self.soc = soc
        self.steady = steady
        self.condition = condition
        self.engine = Engine(device_of(soc), condition, seed)
        self.memory = PhoneMemory(int(soc.memory.usable_bytes * condition.memory_free), walled)
        self.timeline = PhoneTimeline(self.engine)
        self._rng = np.random.default_rng([seed, 2])

    def draw(self, time: Distribution) -> float:
        """A time that varies as the distribution says (log-normal), in microseconds."""
        return time.median_us * self.draw_factor(time.sigma)

    def draw_factor(self, sigma: float) -> float:
        """A factor whose logarithm is normal with this standard deviation."""
        if self.steady or not sigma:
            return 1.0
        return float(np.exp(sigma * self._rng.standard_normal()))


@functools.cache
def shared_phone(soc: str, condition: str, seed: int) -> Phone:
    """The phone that all processors opened by such a specification belong to.

    Raises:
        UsageError: unknown; the known ones are listed.
    """
    return Phone(find_soc(soc), condition_named(condition), seed)


class Happening(Signal):
    """A signal of the simulation."""

    def __init__(self, event: simpy.Event, timeline: PhoneTimeline) -> None:
        self.event = event
        self.timeline = timeline

    def happen(self) -> None:
        if not self.event.triggered:
            self.event.succeed()
            self.timeline.told(self.event)


class PhoneTimeline(Timeline):
    """Virtual time of a phone, and threads of its host in it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._tape: Tape | None = None
        self._thread_notes: list[Note] | None = None

    def now_ns(self) -> int:
        return round(self.engine.now_us * 1e3)

    def signal(self) -> Signal:
        return Happening(self.engine.env.event(), self)

    @contextmanager
    def recording(self) -> Iterator[Tape]:
        """A tape of what the threads do meanwhile."""
        self._tape = tape = Tape()
        try:
            yield tape
        finally:
            self._tape = None

    def submitted(self, job: Job, draw: Callable[[], Work], *, alone: bool) -> None:
        """Work was handed over, which waits for nothing but what is before it if ``alone``."""
        if self._tape is not None:
            self._note(Submit(self._tape.number_of(job), job.unit, draw))
            self._tape.whole = self._tape.whole and alone

    def told(self, event: simpy.Event) -> None:
        """A signal has happened."""
        if self._tape is not None:
            self._note(Tell(self._tape.signal_of(event)))

    def _note(self, note: Note) -> None:
        assert self._tape is not None
        if self._thread_notes is None:
            self._tape.whole = False
        else:
            self._thread_notes.append(note)

    def wait(self, ticket: SimulatedTicket) -> None:
        """Let time pass until the host knows that some work is done."""
        self.engine.run_until(ticket.job.done)
        self.engine.pass_time(ticket.learn(self.engine.now_us))

    def begin(self, threads: Sequence[Thread]) -> list[simpy.Process]:
        """Start threads in virtual time; they go on whenever it passes."""
        return [self.engine.env.process(self._thread(thread)) for thread in threads]

    def follow(self, threads: Sequence[Thread]) -> None:
        env = self.engine.env
        processes = self.begin(threads)
        try:
            self.engine.run_until(env.all_of(processes))
        except BaseException:
            for process in processes:
                if process.is_alive:
                    process.interrupt()
            raise

    def _thread(self, thread: Thread) -> Generator[simpy.Event, None, None]:
        notes = None if self._tape is None else self._tape.thread()
        try:
            for awaited in self._noted(thread, notes):
                if isinstance(awaited, Happening):
                    yield awaited.event
                    continue
                assert isinstance(awaited, SimulatedTicket)
                if not awaited.job.done.processed:
                    yield awaited.job.done
                delay = awaited.learn(self.engine.now_us)
                if delay:
                    yield self.engine.env.timeout(delay)
        except simpy.Interrupt:
            return  # another thread failed, and says why

    def _noted(self, thread: Thread, notes: list[Note] | None) -> Thread:
        """A thread that says whose notes are written whenever it goes on."""
        while True:
            self._thread_notes = notes
            awaited = next(thread, None)
            self._thread_notes = None
            if awaited is None:
                return
            if notes is not None and self._tape is not None:
                notes.append(_waiting(awaited, self._tape))
            yield awaited


def _waiting(awaited: Signal | Ticket, tape: Tape) -> Note:
    if isinstance(awaited, Happening):
        return Hear(tape.signal_of(awaited.event))
    assert isinstance(awaited, SimulatedTicket)
    knowledge = awaited.knowledge
    return Learn(tape.number_of(awaited.job), id(knowledge), knowledge.draw_us)
