"""Where a job is at any moment until rates change: planned once, and only looked up later.

Who works alone, or beside others that leave it what it wants, passes its phases as at its own
speed (:class:`Steady`). Who wants bandwidth that others want too passes segments of constant rates,
each of which ends where a phase of anyone does (:class:`Shared`). Both are exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence

from coexec.simulation.sharing import max_min_shares
from coexec.simulation.work import Progress, Timing

EPSILON_US = 1e-4
"""Instants closer than this are one: below it lies the rounding of hours in a double."""
LOOKAHEAD = 32
"""Segments that are planned at once at most: who comes in between makes them worthless."""


class Course(ABC):
    """How a job goes on. ``end_us`` is up to when this is known.

    ``passed_gbps`` is the most bandwidth that all jobs had where the last advance went.
    """

    end_us: float
    passed_gbps: float = 0.0

    @abstractmethod
    def advance(self, job: Progress, now_us: float) -> None:
        """Move the job to where it is now."""


class Steady(Course):
    """All phases that are left, at one speed and with nobody in the way."""

    def __init__(self, job: Progress, timing: Timing, now_us: float) -> None:
        self._phases_us, self._ends_us = timing.phases_us, timing.ends_us
        phase = job.phase
        left_us = self._phases_us[phase] * job.left
        self._begin_us = now_us - (self._ends_us[phase] - left_us)
        self.end_us = self._begin_us + self._ends_us[-1]

    def advance(self, job: Progress, now_us: float) -> None:
        if job.finished:
            return
        begin, ends, before = self._begin_us, self._ends_us, job.phase
        if self.end_us <= now_us + EPSILON_US:
            phase = len(ends)
        else:
            phase = bisect_right(ends, now_us - begin + EPSILON_US, before)
        job.ends_us[before:phase] = [begin + end for end in ends[before:phase]]
        left = 1.0
        if phase < len(ends) and self._phases_us[phase]:
            left = (begin + ends[phase] - now_us) / self._phases_us[phase]
        job.move_to(phase, min(max(left, 0.0), 1.0))


class Segments:
    """What several jobs share: where segments begin and the last ends, and all their bandwidth."""

    def __init__(self, now_us: float) -> None:
        self.times_us = [now_us]
        self.gbps: list[float] = []


class Shared(Course):
    """Segments of one job: its phase and what is left of it at each of their ends."""

    def __init__(self, job: Progress, segments: Segments) -> None:
        self.phase, self.left = job.phase, job.left
        self._segments = segments
        self._phases = [job.phase]
        self._lefts = [job.left]
        self._durations_us: list[float] = []
        self._at = 0

    def append(self, duration_us: float, us: float) -> bool:
        """A segment of ``us`` in which the whole phase takes ``duration_us``; is the phase over?"""
        over = duration_us * self.left <= us + EPSILON_US
        if over:
            self.phase += 1
            self.left = 1.0
        else:
            self.left -= us / duration_us
        self._durations_us.append(duration_us)
        self._phases.append(self.phase)
        self._lefts.append(self.left)
        return over

    def close(self) -> None:
        """No segment more."""
        self.end_us = self._segments.times_us[-1]

    def advance(self, job: Progress, now_us: float) -> None:
        if job.finished:
            return
        times, phases, before = self._segments.times_us, self._phases, self._at
        at = self._at = bisect_right(times, now_us + EPSILON_US, before) - 1
        for segment in range(before, at):
            if phases[segment + 1] > phases[segment]:
                job.ends_us[phases[segment]] = times[segment + 1]
        self.passed_gbps = max(self._segments.gbps[before : at + 1], default=0.0)
        left = self._lefts[at]
        if at < len(self._durations_us) and self._durations_us[at]:
            left -= max(now_us - times[at], 0.0) / self._durations_us[at]
        job.move_to(phases[at], max(left, 0.0))


def plan_shared(
    jobs: Sequence[Progress],
    timings: Sequence[Timing],
    now_us: float,
    shared_gbps: float,
    load_gbps: float,
) -> tuple[list[Shared], float]:
    """Courses until the first job ends, and the bandwidth that loads of other apps have.

    Loads take part like one more unit. While there are any, one segment is planned at a time: what
    they have differs from one to the next.
    """
    segments = Segments(now_us)
    courses = [Shared(job, segments) for job in jobs]
    together = list(zip(timings, courses, strict=True))
    load_share = load_gbps
    for _ in range(1 if load_gbps else LOOKAHEAD):
        durations = [timing.phases_us[course.phase] for timing, course in together]
        demands = [timing.gbps[course.phase] for timing, course in together]
        gbps = sum(demands) + load_gbps
        if gbps > shared_gbps:
            *shares, load_share = max_min_shares([*demands, load_gbps], shared_gbps)
            durations = [
                us * demand / share if demand > share else us
                for us, demand, share in zip(durations, demands, shares, strict=True)
            ]
            gbps = shared_gbps
        us = min([d * course.left for d, course in zip(durations, courses, strict=True)])
        now_us += us
        segments.times_us.append(now_us)
        segments.gbps.append(gbps)
        ended = False
        for duration, (timing, course) in zip(durations, together, strict=True):
            if course.append(duration, us):
                ended = ended or course.phase >= len(timing.phases_us)
        if ended:
            break
    for course in courses:
        course.close()
    return courses, load_share


def courses_of(
    jobs: Sequence[Progress],
    timings: Sequence[Timing],
    now_us: float,
    shared_gbps: float,
    load_gbps: float,
) -> tuple[Sequence[Course], float]:
    """Courses of all jobs at work, and the bandwidth that loads of other apps have beside them.

    One job alone never exceeds what all have together; the others may together.
    """
    alone = len(jobs) == 1 and not load_gbps
    if alone or sum([timing.most_gbps for timing in timings]) + load_gbps <= shared_gbps:
        steady = [Steady(job, timing, now_us) for job, timing in zip(jobs, timings, strict=True)]
        return steady, load_gbps
    return plan_shared(jobs, timings, now_us, shared_gbps, load_gbps)
