"""What a schedule leads to: every task and move with its times. All policies and reports use this.

An event simulation: tasks take their processor's resources in the order of the schedule, run at a
rate that depends on what else runs (see :class:`Problem`), and send their results on.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coexec.placement.hand_over import handed_over, taken_from_caller
from coexec.placement.problem import Matrix, Problem, Schedule

LEAST_FACTOR = 1e-3
"""Of all speedups by others together: a task never takes no time at all."""
DECILE = 1.2815515655446004
"""Standard deviations from the median to the last decile of a normal distribution."""


class Move(NamedTuple):
    """A tensor on its way between two processors, or a processor and the host."""

    tensor: int
    source: int
    target: int
    start_us: float
    end_us: float


@dataclass(frozen=True)
class Timeline:
    """Times by task in microseconds from the start.

    ``makespan_us`` is when all is done and where the host wants it, ``busy_us`` the time of each
    processor in tasks.
    """

    start_us: tuple[float, ...]
    end_us: tuple[float, ...]
    moves: tuple[Move, ...]
    makespan_us: float
    busy_us: tuple[float, ...]


def simulate(
    problem: Problem,
    schedule: Schedule,
    times: list[list[float]] | None = None,
    latencies: list[list[float]] | None = None,
) -> Timeline:
    """Run a schedule on paper, with the problem's medians or the times that are given.

    The schedule must be valid (:meth:`Schedule.check`).
    """
    return _Simulation(
        problem,
        schedule,
        problem.times if times is None else times,
        problem.latencies if latencies is None else latencies,
    ).run()


def makespan_deciles(problem: Problem, schedule: Schedule) -> tuple[float, float]:
    """First and last decile of the makespan: by times that all are at theirs, the median between.

    Times of a run vary together, since what makes a machine slow lasts longer than a call: sums of
    a network's 56 kernels had 0.8 of the spread of kernels that all deviate alike, and five times
    that of independent ones (two OpenCL runtimes, 60 runs each).
    """
    spans = []
    for deviations in (-DECILE, 0.0, DECILE):
        times = _deviating(problem.time_us, problem.time_sigma, deviations)
        latencies = _deviating(np.array(problem.latencies), problem.latency_sigma, deviations)
        spans.append(simulate(problem, schedule, times, latencies).makespan_us)
    return min(spans), max(spans)


def _deviating(median: Matrix, sigma: Matrix, deviations: float) -> list[list[float]]:
    """Log-normal times that lie so many standard deviations from their medians."""
    found: list[list[float]] = (median * np.exp(deviations * sigma)).tolist()
    return found


def restarts(problem: Problem, schedule: Schedule) -> dict[int, float]:
    """Microseconds by task for which its processor is launched again before it.

    A launch ends with a result for others (:mod:`coexec.runtime.partition`). Who then reads
    something new from elsewhere has the launch in that move; a task that goes on alone has not.
    """
    found: dict[int, float] = {}
    if not any(unit.restart_us for unit in problem.units):
        return found
    placed = schedule.units
    ended = [False] * len(problem.units)
    known: list[set[int]] = [set() for _ in problem.units]
    for index in schedule.order:
        unit, task = placed[index], problem.tasks[index]
        foreign = {each for each in task.inputs if problem.source(each, placed) != unit}
        if ended[unit] and foreign <= known[unit]:
            found[index] = problem.units[unit].restart_us
        known[unit] |= foreign
        readers = (reader for each in task.outputs for reader in problem.consumers[each])
        ended[unit] = any(placed[reader] != unit for reader in readers)
    return found


class _Simulation:
    """State of one simulation."""

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        times: list[list[float]],
        latencies: list[list[float]],
    ) -> None:
        self.problem = problem
        self.placed = schedule.units
        self.times = times
        self.latencies = latencies
        self.slowdown: list[list[float]] = problem.slowdown.tolist()
        self.restarts = restarts(problem, schedule)
        # What a processor is occupied by copies for: its own tensors out, others' in.
        self.copying = any(max(*unit.reads, *unit.writes) > 0 for unit in problem.units)
        self.writes = self._writes(schedule) if self.copying else {}
        self.start = [0.0] * len(problem.tasks)
        self.end = [0.0] * len(problem.tasks)
        self.moves: list[Move] = []
        self.busy = [0.0] * len(problem.units)
        self.position = [0] * len(problem.tasks)
        self.enlisted = [False] * len(problem.tasks)
        # Inputs that are not produced yet, and when the last of the others arrives.
        self.missing = [0] * len(problem.tasks)
        self.arrival = [0.0] * len(problem.tasks)
        # When the host has handed each task over; of those behind a gate, since that opened.
        self.handed, self.given = [0.0] * len(problem.tasks), 0.0
        # What the host takes of a processor's time, where it has no core of its own.
        self.hosting: list[float] = [0.0] * len(problem.tasks)
        if problem.exchange_us is not None:
            self.handed, self.given, exchanges = handed_over(problem, schedule)
            if problem.caller is not None:
                self.hosting = taken_from_caller(problem, schedule, exchanges)
            elif problem.host_first:
                self._begin_last(schedule)
            elif problem.host_shares:
                self.hosting = exchanges
        # Tasks that hold or wait for each resource, in the schedule's order.
        self.queues: list[deque[int]] = [deque() for _ in range(problem.resource_count)]
        # Tasks whose turn has come, by the time when their inputs are there.
        self.ready: list[tuple[float, int, int]] = []
        self.running: dict[int, float] = {}
        self.now = 0.0
        self._prepare(schedule)

    def _prepare(self, schedule: Schedule) -> None:
        for place, index in enumerate(schedule.order):
            self.position[index] = place
            for resource in self.problem.resources[self.placed[index]]:
                self.queues[resource].append(index)
        for number, tensor in enumerate(self.problem.tensors):
            if tensor.producer is None:
                self._send(number, 0.0)
            else:
                for consumer in self.problem.consumers[number]:
                    self.missing[consumer] += 1
        for index, task in enumerate(self.problem.tasks):
            if not any(self.problem.tensors[tensor].gate for tensor in task.inputs):
                self.arrival[index] = max(self.arrival[index], self.handed[index])
            self._enlist(index)

    def _begin_last(self, schedule: Schedule) -> None:
        """The first of several processors begins when the host, on its core, has nothing to do."""
        first = schedule.units[schedule.order[0]]
        if len(set(schedule.units)) > 1:
            for index, unit in enumerate(schedule.units):
                if unit == first:
                    self.arrival[index] = self.given

    def _writes(self, schedule: Schedule) -> dict[int, float]:
        """Microseconds by task for copying in what its processor has not got yet."""
        found: dict[int, float] = {}
        there: set[tuple[int, int]] = set()
        for index in schedule.order:
            unit = self.placed[index]
            for tensor in self.problem.tasks[index].inputs:
                if self.problem.source(tensor, self.placed) != unit and (tensor, unit) not in there:
                    there.add((tensor, unit))
                    us = self.problem.units[unit].write_us(self.problem.tensors[tensor].nbytes)
                    found[index] = found.get(index, 0.0) + us
        return found

    def run(self) -> Timeline:
        left = len(self.problem.tasks)
        while left:
            self._start_tasks()
            finish = self._next_end()
            # A task that becomes ready changes the rates of those that run.
            until = min(finish, self.ready[0][0] if self.ready else np.inf)
            self._advance(until)
            if until == finish:
                left -= self._finish_tasks()
        makespan = max((*self.end, *(move.end_us for move in self.moves)), default=0.0)
        return Timeline(
            tuple(self.start), tuple(self.end), tuple(self.moves), makespan, tuple(self.busy)
        )

    def _start_tasks(self) -> None:
        while self.ready and self.ready[0][0] <= self.now:
            _, _, index = heapq.heappop(self.ready)
            self.start[index] = self.now
            before = self.restarts.get(index, 0.0) + self.writes.get(index, 0.0)
            # While a processor waits for the host, the host has that one's core.
            before += min(self.hosting[index], max(self.now - self.handed[index], 0.0))
            self.running[index] = self.times[index][self.placed[index]] + before

    def _unit(self, running: int) -> int:
        """Where a task runs, or what it made is copied out of: its number, inverted."""
        return self.placed[running if running >= 0 else ~running]

    def _rate(self, index: int) -> float:
        """Progress per microsecond; slowdowns by several others add up."""
        if len(self.running) == 1:
            return 1.0
        row = self.slowdown[self._unit(index)]
        others = (row[self._unit(other)] for other in self.running if other != index)
        return 1.0 / max(1.0 + sum(factor - 1.0 for factor in others), LEAST_FACTOR)

    def _next_end(self) -> float:
        if not self.problem.contended:
            return min((self.now + left for left in self.running.values()), default=np.inf)
        ends = (self.now + left / self._rate(index) for index, left in self.running.items())
        return min(ends, default=np.inf)

    def _advance(self, until: float) -> None:
        passed = until - self.now
        rates = {i: self._rate(i) if self.problem.contended else 1.0 for i in self.running}
        for index, rate in rates.items():
            self.busy[self._unit(index)] += passed
            self.running[index] -= passed * rate
        self.now = until

    def _finish_tasks(self) -> int:
        """End what has no work left (the least is among them whatever rounding did)."""
        least = min(self.running.values())
        ended = [i for i, left in self.running.items() if left <= max(least, 0.0) + 1e-9]
        for index in ended:
            del self.running[index]
            if index < 0:
                self._release(~index)
                continue
            self.end[index] = self.now
            copied = 0.0
            for tensor in self.problem.tasks[index].outputs:
                copied += self._send(tensor, self.now + copied)
                for consumer in self.problem.consumers[tensor]:
                    self.missing[consumer] -= 1
            if copied:
                self.running[~index] = copied
                self._enlist_readers(index)
            else:
                self._release(index)
        return sum(index >= 0 for index in ended)

    def _release(self, index: int) -> None:
        """Give resources back; what comes next, and who got its last input, may be ready now."""
        next_ones: dict[int, None] = {}
        for resource in self.problem.resources[self.placed[index]]:
            queue = self.queues[resource]
            queue.popleft()
            if queue:
                next_ones[queue[0]] = None
        for task in next_ones:
            self._enlist(task)
        self._enlist_readers(index)

    def _enlist_readers(self, index: int) -> None:
        for tensor in self.problem.tasks[index].outputs:
            for task in self.problem.consumers[tensor]:
                self._enlist(task)

    def _enlist(self, index: int) -> None:
        """Note a task as ready, once, if it heads all its queues and its inputs are produced."""
        if self.missing[index] or self.enlisted[index]:
            return
        if all(self.queues[r][0] == index for r in self.problem.resources[self.placed[index]]):
            ready = max(self.arrival[index], self.now)
            heapq.heappush(self.ready, (ready, self.position[index], index))
            self.enlisted[index] = True

    def _send(self, tensor: int, when: float) -> float:
        """A tensor is there at ``when``: move it to every other place that wants it, once.

        Returns how long its processor is occupied by that.
        """
        source = self.problem.source(tensor, self.placed)
        there = {source: when}
        for consumer in self.problem.consumers[tensor]:
            target = self.placed[consumer]
            if target not in there:
                there[target] = self._move(tensor, source, target, when)
            self.arrival[consumer] = max(self.arrival[consumer], there[target])
        if self.problem.tensors[tensor].fetched and self.problem.host not in there:
            seen = self._move(tensor, source, self.problem.host, when)
            there[self.problem.host] = seen
            if self.problem.tensors[tensor].gate:
                self._open(tensor, max(seen, self.given))
        if len(there) == 1 or source == self.problem.host or not self.copying:
            return 0.0
        return self.problem.units[source].read_us(self.problem.tensors[tensor].nbytes)

    def _open(self, gate: int, when: float) -> None:
        """The host has seen a gate and handed over all that does not wait for it."""
        if self.problem.exchange_us is not None:
            for reader in self.problem.consumers[gate]:
                self.arrival[reader] = max(self.arrival[reader], when + self.handed[reader])

    def _move(self, tensor: int, source: int, target: int, when: float) -> float:
        """When a tensor that leaves now is there."""
        nbytes = self.problem.tensors[tensor].nbytes
        arrives = when + self.latencies[source][target]
        arrives += nbytes * self.problem.byte_times[source][target]
        if self.copying and target != self.problem.host:
            # Copying in occupies the processor: it is part of the task that reads it.
            arrives = max(when, arrives - self.problem.units[target].write_us(nbytes))
        self.moves.append(Move(tensor, source, target, when, arrives))
        return arrives
