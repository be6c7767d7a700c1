"""A run of several processors on tape: what each thread of the host did, to be timed again.

The host's threads do the same in every run of a program; when they do it depends on clocks and on
what varies from run to run. A tape has what they handed over, told each other and waited for, so
that a run at other clocks is timed without them: in about half the time of simulating it again,
with the same result, and no clock changes in it. It has no loads, no governor and no heat.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import simpy

from coexec.simulation.course import EPSILON_US
from coexec.simulation.sharing import max_min_shares
from coexec.simulation.work import Job, Timing, Work


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


class _Piece:
    """Work in the queue of a unit: the phase under way, what is left of it, when all ended."""

    __slots__ = ("end_us", "left", "phase", "timing")

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.phase = 0
        self.left = 1.0
        self.end_us = math.nan

    @property
    def left_us(self) -> float:
        """All that is left, if nobody else uses the memory."""
        timing, phase = self.timing, self.phase
        return timing.ends_us[-1] - timing.ends_us[phase] + timing.phases_us[phase] * self.left

    def pass_freely(self, us: float) -> bool:
        """Go on for so long at its own speed; is all over?"""
        timing, phase = self.timing, self.phase
        ends, phases = timing.ends_us, timing.phases_us
        at = ends[phase] - phases[phase] * self.left + us
        if at + EPSILON_US >= ends[-1]:
            return True
        self.phase = phase = bisect_right(ends, at + EPSILON_US, phase)
        self.left = min(max((ends[phase] - at) / phases[phase], 0.0), 1.0) if phases[phase] else 1.0
        return False

    def pass_slowed(self, us: float, duration_us: float) -> bool:
        """Go on within a phase that takes so long as a whole; is all over?"""
        if duration_us * self.left > us + EPSILON_US:
            self.left -= us / duration_us
            return False
        self.phase, self.left = self.phase + 1, 1.0
        return self.phase >= len(self.timing.ends_us)


class _Player:
    """The state of a run: queues of units, and where each thread is.

    The times of the engine's (:mod:`coexec.simulation.course`), with less to look after: nothing
    but the end of work and of sleep changes anything here.
    """

    def __init__(self, tape: Tape, speeds: Mapping[str, float], shared_gbps: float) -> None:
        self.tape, self.speeds, self.shared_gbps = tape, speeds, shared_gbps
        self.now_us = self.moved = 0.0
        self.queues: dict[str, deque[_Piece]] = {unit: deque() for unit in speeds}
        self.jobs: dict[int, _Piece] = {}
        self.busy_us = dict.fromkeys(speeds, 0.0)
        self.happened: set[int] = set()
        self.known_us: dict[int, float] = {}
        self.at = [0] * len(tape.threads)
        self.runnable = deque(range(len(tape.threads)))
        self.asleep: list[tuple[float, int]] = []
        # Threads by the signal, or the work, that they wait for.
        self.hearing: dict[int, list[int]] = defaultdict(list)
        self.waiting: dict[_Piece, list[int]] = defaultdict(list)

    def run(self) -> Played:
        while True:
            while self.runnable:
                self._go_on(self.runnable.popleft())
            active = [(unit, queue[0]) for unit, queue in self.queues.items() if queue]
            if not active and not self.asleep:
                return Played(self.now_us, self.busy_us, self.moved)
            self._pass_to_next_event(active)

    def _pass_to_next_event(self, active: list[tuple[str, _Piece]]) -> None:
        """Until work of a unit (where units slow each other down, a phase), or a sleep is over."""
        woken_us = self.asleep[0][0] if self.asleep else math.inf
        most_us = max(woken_us - self.now_us, 0.0)
        slowed = self._slowed(active)
        if slowed is None:
            us = min([job.left_us for _, job in active], default=math.inf)
        else:
            us = min([each * job.left for each, (_, job) in zip(slowed, active, strict=True)])
        us = min(us, most_us)
        self.now_us = woken_us if us == most_us else self.now_us + us
        for place, (unit, job) in enumerate(active):
            self.busy_us[unit] += us
            over = job.pass_freely(us) if slowed is None else job.pass_slowed(us, slowed[place])
            if over:
                job.end_us = self.now_us
                self.queues[unit].popleft()
                self.runnable.extend(self.waiting.pop(job, ()))
        while self.asleep and self.asleep[0][0] <= self.now_us + EPSILON_US:
            self.runnable.append(heapq.heappop(self.asleep)[1])

    def _slowed(self, active: list[tuple[str, _Piece]]) -> list[float] | None:
        """How long present phases take that want more bandwidth than there is; else nothing."""
        if len(active) < 2 or sum([j.timing.most_gbps for _, j in active]) <= self.shared_gbps:
            return None
        durations = [job.timing.phases_us[job.phase] for _, job in active]
        demands = [job.timing.gbps[job.phase] for _, job in active]
        if sum(demands) <= self.shared_gbps:
            return durations
        shares = max_min_shares(demands, self.shared_gbps)
        return [
            us * demand / share if demand > share else us
            for us, demand, share in zip(durations, demands, shares, strict=True)
        ]

    def _go_on(self, thread: int) -> None:
        """Follow a thread until it waits."""
        notes = self.tape.threads[thread]
        for place in range(self.at[thread], len(notes)):
            self.at[thread] = place
            note = notes[place]
            if isinstance(note, Submit):
                work = note.draw()
                self.moved += work.moved
                job = self.jobs[note.number] = _Piece(work.alone(self.speeds[note.unit]))
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
        if math.isnan(job.end_us):
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
