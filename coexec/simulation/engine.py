"""The event simulation: units work through queues at rates that change as anything else changes.

SimPy keeps the clock and the events. Between two events all rates are constant (a fluid model), so
that each step is exact: progress, bytes, energy and temperature have closed forms. What changes
rates: work that begins or ends, a phase with other traffic, a frequency, a load of other apps.

Phases of work are planned many at once, up to where the first unit has nothing more to do
(:mod:`coexec.simulation.course`): an event is needed there only. All that happens at one instant is
planned for once, when it is over. This is what makes virtual time fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import simpy
from simpy.events import EventPriority

from coexec.simulation.condition import IDLE, Condition
from coexec.simulation.course import Course, courses_of
from coexec.simulation.device import Device, Unit
from coexec.simulation.energy import BASE, DRAM, IDLE_POWER, Ledger
from coexec.simulation.frequency import (
    HEAT_PERIOD_US,
    PERFORMANCE,
    PERIOD_US,
    SCHEDUTIL,
    Frequency,
)
from coexec.simulation.heat import seconds_to_throttle, temperature_after
from coexec.simulation.load import LoadState, come_and_go
from coexec.simulation.work import Job, Work

LEAST_SHARE = 0.01
"""Of its silicon, that other apps leave a unit at least."""
LAST = EventPriority(2)
"""Priority of an event behind all others of its instant (SimPy's own are 0 and 1)."""


@dataclass
class _Lane:
    """A unit with its queue and the planned course of the first in it.

    ``share`` is the part of its silicon that it has until rates change.
    """

    unit: Unit
    frequency: Frequency
    queue: deque[Job] = field(default_factory=deque)
    course: Course | None = None
    share: float = 1.0
    busy_us: float = 0.0
    busy_before_us: float = 0.0

    @property
    def job(self) -> Job | None:
        """What it works on now."""
        return self.queue[0] if self.queue and self.queue[0].ready else None


class Engine:
    """One device under one condition. Times are microseconds of virtual time from the start.

    The same device, condition, seed and calls give the same times.
    """

    def __init__(self, device: Device, condition: Condition = IDLE, seed: int = 0) -> None:
        self.device = device
        self.condition = condition
        self.env = simpy.Environment()
        self.ledger = Ledger()
        self.peak_gbps = 0.0
        ambient = device.heat.ambient_celsius + condition.ambient_rise
        self.sink = replace(device.heat, ambient_celsius=ambient)
        rise = self.sink.throttle_celsius - self.sink.ambient_celsius
        self.celsius = self.sink.ambient_celsius + condition.start_above_ambient * rise
        self.hottest_celsius = self.celsius
        self.loads = [LoadState(load) for load in condition.loads]
        self._lanes: dict[str, _Lane] = {}
        self._apart = True
        self._active: list[tuple[_Lane, Job]] = []
        self._settled_us = 0.0
        self._alarm = 0
        self._alarm_us = float("nan")
        self._changed = False
        self._planned = False
        self._load_gbps = 0.0
        self._idle_w = sum(device.idle_w.values())
        self._leaping: dict[str, float] = {}
        self._calm_until_us = 0.0
        self._governing = False
        self.env.process(self._watch_heat())
        rng = np.random.default_rng([seed, 1])
        for state in self.loads:
            self.env.process(come_and_go(self.env, state, rng.spawn(1)[0], self._change))

    @property
    def now_us(self) -> float:
        return float(self.env.now)

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(lane.unit for lane in self._lanes.values())

    def add(self, unit: Unit) -> None:
        """Let a unit work; one that is known already stays as it is."""
        if unit.name not in self._lanes:
            limit = self.condition.speed_limit
            others = [lane.unit.silicon for lane in self._lanes.values()]
            self._apart = self._apart and all(map(unit.silicon.isdisjoint, others))
            self._lanes[unit.name] = _Lane(unit, Frequency(unit, self.condition.governor, limit))

    def busy_us(self, unit: str) -> float:
        """How long a unit has worked."""
        self.settle()
        return self._lanes[unit].busy_us

    @property
    def constant(self) -> bool:
        """Whether work always takes as long at the same clocks: nobody else takes silicon."""
        return self._apart and not self.loads and self.condition.governor == PERFORMANCE

    def busy_w(self, unit: str) -> float:
        """What a unit draws at its present frequency while it is busy."""
        return self._lanes[unit].frequency.busy_w

    def speed(self, unit: str) -> float:
        """Present frequency of a unit relative to its top one."""
        return self._lanes[unit].frequency.speed

    def submit(self, unit: str, work: Work, after: Sequence[simpy.Event] = ()) -> Job:
        """Queue work behind what the unit has; it starts when all of ``after`` have happened."""
        job = Job(unit, work, self.env.event())
        self._lanes[unit].queue.append(job)
        pending = [event for event in after if not event.processed]
        if pending:
            condition = self.env.all_of(pending)
            assert condition.callbacks is not None
            condition.callbacks.append(lambda _event: self._release(job))
        else:
            self._release(job)
        return job

    def run_until(self, event: simpy.Event) -> None:
        """Let time pass until an event has happened."""
        if not event.processed:
            self.env.run(until=event)
        self.settle()

    def pass_time(self, us: float) -> None:
        """Let so much time pass."""
        if us > 0:
            self.env.run(until=self.env.timeout(us))
        self.settle()

    def calm_us(self, watts: float) -> float:
        """For how long no look at the temperature changes a clock, if units take so much power.

        Known while the phone is not throttled, else 0: then every look may.
        """
        if any(lane.frequency.throttled for lane in self._lanes.values()):
            return 0.0
        rest = self._idle_w + self.device.base_w
        return seconds_to_throttle(self.sink, self.celsius, watts + rest) * 1e6

    def leap(self, us: float, joules: Mapping[str, float], busy_us: Mapping[str, float]) -> None:
        """Let time pass in which units do what is known already; nothing may be queued.

        ``joules`` by unit (and :data:`DRAM`) and ``busy_us`` by unit are spread evenly over the
        time; silicon at rest and the rest of the phone are booked as ever.
        """
        if any(lane.queue for lane in self._lanes.values()):
            raise ValueError("a leap while work is queued")
        self._leaping = {part: amount / us * 1e6 for part, amount in joules.items()}
        self.settle()
        self._calm_until_us = self.now_us + self.calm_us(sum(self._leaping.values()))
        self.pass_time(us)
        self._leaping = {}
        for unit, worked in busy_us.items():
            self._lanes[unit].busy_us += worked

    def settle(self) -> None:
        """Book progress, energy and heat up to now."""
        now = self.now_us
        us = now - self._settled_us
        if us <= 0 and not self._planned:
            return
        self._planned = False
        moved = gbps = joules = 0.0
        seconds = us * 1e-6
        for lane, job in self._active:
            if us > 0:
                lane.busy_us += us * lane.share
                watts = lane.frequency.busy_w * lane.share
                joules += self.ledger.add(lane.unit.name, watts * seconds)
            assert lane.course is not None
            before = job.moved
            lane.course.advance(job, now)  # work that takes no time ends here, too
            moved += job.moved - before
            gbps = max(gbps, lane.course.passed_gbps)
        if moved:
            joules += self.ledger.add(DRAM, moved * self.device.joule_per_byte)
        if us <= 0:
            return
        self.peak_gbps = max(self.peak_gbps, gbps, moved / us * 1e-3 + self._load_gbps)
        joules += self._book_load(seconds)
        for part, watts in self._leaping.items():
            joules += self.ledger.add(part, watts * seconds)
        joules += self.ledger.add(IDLE_POWER, self._idle_w * seconds)
        joules += self.ledger.add(BASE, self.device.base_w * seconds)
        self.celsius = temperature_after(self.sink, self.celsius, joules / seconds, seconds)
        self.hottest_celsius = max(self.hottest_celsius, self.celsius)
        self._settled_us = now

    def _book_load(self, seconds: float) -> float:
        """Joules of other apps."""
        wanted = self._load_demand()
        joules = 0.0
        for state in self.loads:
            gbps = state.load.gbps * self._load_gbps / wanted if wanted else 0.0
            joules += state.book(self.ledger, self.device, gbps, seconds)
        return joules

    def _release(self, job: Job) -> None:
        if self._lanes[job.unit].queue[0] is job:
            self._change(job.release)
        else:  # it only waits for what is before it
            job.release()

    def _change(self, action: Callable[[], None]) -> None:
        """Settle, let ``action`` change what rates depend on, and plan again after this instant."""
        self.settle()
        action()
        self._finish()
        self._plan_later()

    def _plan_later(self) -> None:
        """Once all that happens at this instant has happened."""
        if not self._changed:
            self._changed = True
            _Late(self.env, self._after_changes)

    def _after_changes(self, _event: simpy.Event) -> None:
        self._changed = False
        self.settle()
        self._plan_now()

    def _plan_now(self) -> None:
        self._plan()
        if self.condition.governor == SCHEDUTIL and not self._governing and self._unsettled():
            self._governing = True
            self.env.process(self._govern())

    def _finish(self) -> None:
        """Take work from queues whose last phase is over."""
        for lane, job in self._active:
            if job.finished and lane.queue and lane.queue[0] is job:
                lane.queue.popleft().done.succeed()

    def _plan(self) -> None:
        """Ends of phases at present rates, and an alarm for when they stop being right."""
        active = [(lane, job) for lane in self._lanes.values() if (job := lane.job) is not None]
        self._active = active
        self._load_gbps = self._load_demand() if self.loads else 0.0
        if not active:
            self._alarm += 1
            self._alarm_us = float("nan")
            return
        now = self.now_us
        self._planned = True
        jobs, timings = [], []
        for lane, job in active:
            job.begin(now)
            lane.share = self._share(lane)
            jobs.append(job)
            timings.append(job.work.alone(lane.frequency.speed * lane.share))
        courses, self._load_gbps = courses_of(
            jobs, timings, now, self.device.shared_gbps, self._load_gbps
        )
        for (lane, _), course in zip(active, courses, strict=True):
            lane.course = course
        self._set_alarm(min([course.end_us for course in courses]))

    def _share(self, lane: _Lane) -> float:
        """Share of its silicon that a unit at work has."""
        if self._apart and not self.loads:
            return 1.0
        silicon = lane.unit.silicon
        rivals = 0
        for other, _ in self._active:
            rivals += other is lane or not silicon.isdisjoint(other.unit.silicon)
        free = 1.0
        for state in self.loads:
            if state.on and not silicon.isdisjoint(state.load.silicon):
                free -= state.load.share
        return max(free, LEAST_SHARE) / max(rivals, 1)

    def _load_demand(self) -> float:
        return sum(state.load.gbps for state in self.loads if state.on)

    def _set_alarm(self, at_us: float) -> None:
        """Look again then; the alarm before this one counts no more, if it was for another time."""
        if at_us == self._alarm_us:
            return
        self._alarm += 1
        self._alarm_us = at_us
        number = self._alarm
        timeout = self.env.timeout(max(at_us - self.now_us, 0.0))
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _event: self._ring(number))

    def _ring(self, number: int) -> None:
        if number == self._alarm:
            self._alarm_us = float("nan")
            self.settle()
            self._finish()
            if self._changed or self.env.peek() <= self.env.now:
                self._plan_later()
            else:  # a phase is over, and nothing else happens now
                self._plan_now()

    def _watch_heat(self) -> Generator[simpy.Event, None, None]:
        while True:
            before = self.celsius
            yield self.env.timeout(HEAT_PERIOD_US)
            if self.now_us < self._calm_until_us and self._leaping:
                continue
            self.settle()
            steps = [lane.frequency.step for lane in self._lanes.values()]
            for lane in self._lanes.values():
                lane.frequency.look(self.sink, self.celsius, before)
            if steps != [lane.frequency.step for lane in self._lanes.values()]:
                self._finish()
                self._plan_later()

    def _govern(self) -> Generator[simpy.Event, None, None]:
        """Decide every period until deciding changes nothing more."""
        for lane in self._lanes.values():
            lane.busy_before_us = lane.busy_us
        while self._unsettled():
            yield self.env.timeout(PERIOD_US)
            self._change(self._decide)
        self._governing = False

    def _unsettled(self) -> bool:
        return any(
            not lane.frequency.settled(lane.job is not None) for lane in self._lanes.values()
        )

    def _decide(self) -> None:
        for lane in self._lanes.values():
            lane.frequency.follow((lane.busy_us - lane.busy_before_us) / PERIOD_US)
            lane.busy_before_us = lane.busy_us


class _Late(simpy.Event):
    """Happens now, when all other events of this instant have."""

    def __init__(self, env: simpy.Environment, then: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self.callbacks = [then]
        self._ok, self._value = True, None
        env.schedule(self, LAST)
