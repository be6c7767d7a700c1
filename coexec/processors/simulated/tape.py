"""A run of several processors on tape: what each thread of the host did, to be timed again.

The host's threads do the same in every run of a program; when they do it depends on clocks and on
what varies from run to run. A tape has what they handed over, told each other and waited for, so
that a run at other clocks is timed without them: in about half the time of simulating it again,
with the same result, and no clock changes in it. It has no loads, no governor and no heat.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import simpy

from coexec.simulation.course import EPSILON_US, Course, courses_of
from coexec.simulation.work import Job, Progress, Work


@dataclass(frozen=True)
class Submit:
    """Work for a unit, by number; ``draw`` makes what varies of it from run to run."""

    number: int
    unit: str
    draw: Callable[[], Work]


@dataclass(frozen=True)
class Tell:
    """A signal happens."""

    signal: int


@dataclass(frozen=True)
class Hear:
    """Wait for a signal."""

    signal: int


@dataclass(frozen=True)
class Learn:
    """Wait until the host knows that work is done, and so all that its ``knower`` did before."""

    number: int
    knower: int
    draw_us: Callable[[], float]


Note = Submit | Tell | Hear | Learn


@dataclass
class Tape:
    """Notes by thread. It is ``whole`` if nothing was done beside the threads."""

    threads: list[list[Note]] = field(default_factory=list)
    whole: bool = True
    _jobs: dict[Job, int] = field(default_factory=dict)
    _signals: dict[simpy.Event, int] = field(default_factory=dict)

    def thread(self) -> list[Note]:
        """One more thread."""
        self.threads.append([])
        return self.threads[-1]

    def number_of(self, job: Job) -> int:
        """The number of a job."""
        return self._jobs.setdefault(job, len(self._jobs))

    def signal_of(self, event: simpy.Event) -> int:
        """The number of a signal."""
        return self._signals.setdefault(event, len(self._signals))


@dataclass(frozen=True)
class Played:
    """A run: microseconds that it takes, those that each unit works, bytes that are moved."""

    us: float
    busy_us: Mapping[str, float]
    moved: float


def play(tape: Tape, speeds: Mapping[str, float], shared_gbps: float) -> Played:
    """Time a run with units at these relative frequencies, all by themselves on their silicon."""
    return _Player(tape, speeds, shared_gbps).run()


class _Player:
    """The state of a run: queues of units, and where each thread is."""

    def __init__(self, tape: Tape, speeds: Mapping[str, float], shared_gbps: float) -> None:
        self.tape, self.speeds, self.shared_gbps = tape, speeds, shared_gbps
        self.now_us = 0.0
        self.queues: dict[str, deque[Progress]] = defaultdict(deque)
        self.jobs: dict[int, Progress] = {}
        # What the units work on, and the planned courses of that.
        self.active: list[tuple[str, Progress]] = []
        self.courses: Sequence[Course] = ()
        self.busy_us = dict.fromkeys(speeds, 0.0)
        self.happened: set[int] = set()
        self.known_us: dict[int, float] = {}
        self.at = [0] * len(tape.threads)
        self.runnable = deque(range(len(tape.threads)))
        self.asleep: list[tuple[float, int]] = []
        # Threads by the signal, or the number of the job, that they wait for.
        self.hearing: dict[int, list[int]] = defaultdict(list)
        self.waiting: dict[Progress, list[int]] = defaultdict(list)

    def run(self) -> Played:
        while True:
            while self.runnable:
                self._go_on(self.runnable.popleft())
            active = [(unit, queue[0]) for unit, queue in self.queues.items() if queue]
            if not active and not self.asleep:
                break
            if active != self.active:
                self._plan(active)
            self._pass_to_next_event()
        moved = sum(job.moved for job in self.jobs.values())
        return Played(self.now_us, self.busy_us, moved)

    def _plan(self, active: list[tuple[str, Progress]]) -> None:
        self.active = active
        self.courses = ()
        if active:
            jobs = [job for _, job in active]
            timings = [job.work.alone(self.speeds[unit]) for unit, job in active]
            self.courses, _ = courses_of(jobs, timings, self.now_us, self.shared_gbps, 0.0)

    def _pass_to_next_event(self) -> None:
        """Until work of a unit or the sleep of a thread is over, or what is planned is."""
        planned_us = min([course.end_us for course in self.courses], default=math.inf)
        woken_us = self.asleep[0][0] if self.asleep else math.inf
        next_us = max(min(planned_us, woken_us), self.now_us)
        us, self.now_us = next_us - self.now_us, next_us
        for (unit, job), course in zip(self.active, self.courses, strict=True):
            self.busy_us[unit] += us
            course.advance(job, self.now_us)
            if job.finished:
                self.queues[unit].popleft()
                self.runnable.extend(self.waiting.pop(job, ()))
        if planned_us <= self.now_us:
            self.active, self.courses = [], ()  # plan again, whoever is first in the queues
        while self.asleep and self.asleep[0][0] <= self.now_us + EPSILON_US:
            self.runnable.append(heapq.heappop(self.asleep)[1])

    def _go_on(self, thread: int) -> None:
        """Follow a thread until it waits."""
        notes = self.tape.threads[thread]
        for place in range(self.at[thread], len(notes)):
            self.at[thread] = place
            note = notes[place]
            if isinstance(note, Submit):
                job = self.jobs[note.number] = Progress(note.draw())
                self.queues[note.unit].append(job)
            elif isinstance(note, Tell):
                self.happened.add(note.signal)
                self.runnable.extend(self.hearing.pop(note.signal, ()))
            elif isinstance(note, Hear):
                if note.signal not in self.happened:
                    self.hearing[note.signal].append(thread)
                    return
            elif not self._knows(thread, note):
                return
        self.at[thread] = len(notes)

    def _knows(self, thread: int, note: Learn) -> bool:
        """Whether the host knows that work is done; the thread waits until it does."""
        job = self.jobs[note.number]
        if not job.finished:
            self.waiting[job].append(thread)
            return False
        if job.end_us <= self.known_us.get(note.knower, -1.0):
            return True
        self.known_us[note.knower] = job.end_us
        known_us = job.end_us + note.draw_us()
        if known_us <= self.now_us:
            return True
        heapq.heappush(self.asleep, (known_us, thread))
        return False
