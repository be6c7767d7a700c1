"""Let shares overlap where computing a few elements twice takes less time than fetching them.

A window that reaches over a cut (a 3 x 3 convolution divided by rows) wants elements of the
neighbour. Either they move, for the price of a synchronisation, or the share of the node before
computes them too, which makes that node want more in turn. From the last node to the first, each
divided node takes the cheaper way, so that several layers run between two exchanges. After
DeepThings (Zhao and others, 2018), which fuses layers of tiles so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from coexec.base.window import Window
from coexec.placement.problem import NO_OVERLAP, Division, Problem, Schedule

Overlap = tuple[int, int]
"""Units before those of a share, and behind them."""


def overlap(problem: Problem, schedule: Schedule) -> Schedule:
    """``schedule`` with shares that overlap where that pays."""
    if not schedule.shares:
        return schedule
    return _Overlapper(problem, schedule).run()


@dataclass(frozen=True)
class _Reader:
    """A divided task that reads a divided one along the same cuts, through ``window``."""

    task: int
    window: Window


class _Overlapper:
    def __init__(self, problem: Problem, schedule: Schedule) -> None:
        self.problem = problem
        self.schedule = schedule
        self.shares = dict(schedule.shares)
        # Tasks that have to overlap because what follows in the same kernel does.
        self.bound: set[int] = set()

    def run(self) -> Schedule:
        for task in reversed(self.schedule.order):
            if task in self.shares:
                self._decide(task)
        return replace(self.schedule, shares=self.shares)

    def _decide(self, task: int) -> None:
        wanted = self._wanted(task)
        if not any(wanted):
            return
        if task in self.bound or self._again_us(task, wanted) < self._exchange_us(task, wanted):
            self.shares[task] = replace(self.shares[task], overlap=wanted)
            self.bound.update(self._fused(task))

    def _wanted(self, task: int) -> Overlap:
        """Units beyond its own that any share would need for what reads this task.

        Windows with strides may reach over a cut on one side only.
        """
        division = self._division(task)
        before = behind = 0
        for reader in self._readers(task):
            own = {unit: (start, stop) for unit, start, stop in self.shares[task].bounds}
            for unit, start, stop in self.shares[reader.task].computed:
                first, last = reader.window.span(start, stop)
                if unit not in own:
                    return NO_OVERLAP
                low, high = (bound * division.quantum for bound in own[unit])
                before, behind = max(before, low - first), max(behind, last - high)
        return -(-before // division.quantum), -(-behind // division.quantum)

    def _readers(self, task: int) -> Iterator[_Reader]:
        """Readers of the task that are divided along the same axis."""
        axis = self._division(task).axis
        for tensor in self.problem.tasks[task].outputs:
            for reader in self.problem.consumers[tensor]:
                if reader in self.shares:
                    place = self.problem.tasks[reader].inputs.index(tensor)
                    window = self._division(reader).windows[place]
                    if window is not None and window.axis == axis:
                        yield _Reader(reader, window)

    def _division(self, task: int) -> Division:
        return self.problem.divisions[task][self.shares[task].division]

    def _again_us(self, task: int, units: Overlap) -> float:
        """What computing so much twice takes, with the tasks before that are bound by it."""
        division = self._division(task)
        more = replace(self.shares[task], overlap=units)
        return max(
            division.time_us(unit, stop - start) - division.time_us(unit, own)
            for (unit, start, stop), (_, own) in zip(more.computed, more.units, strict=True)
        ) + sum(self._again_us(before, units) for before in self._fused(task))

    def _fused(self, task: int) -> Iterator[int]:
        """Divided tasks that only this one reads, element by element: one kernel, as a rule."""
        division = self._division(task)
        for tensor, window in zip(self.problem.tasks[task].inputs, division.windows, strict=True):
            before = self.problem.tensors[tensor].producer
            alone = len(self.problem.consumers[tensor]) == 1
            pointwise = window is not None and window.reach == window.step == 1
            if before is not None and before in self.shares and alone and pointwise:
                yield before

    def _exchange_us(self, task: int, units: Overlap) -> float:
        """What fetching as much takes: cut, moved, and joined to what a share has.

        Infinite where one of them refuses to cut or to join.
        """
        shares, division = self.shares[task], self._division(task)
        tensors = [self.problem.tensors[each] for each in self.problem.tasks[task].outputs]
        each = max(tensor.nbytes for tensor in tensors) / division.count
        places = [unit for unit, _ in shares.units]
        moved = max(
            self.problem.latencies[p][q] + max(units) * each * self.problem.byte_times[p][q]
            for p in places
            for q in places
        )
        copied = max(
            self._copy_us(unit, (count + sum(units)) * each) for unit, count in shares.units
        )
        refused = frozenset().union(*(each.uncut | each.unjoined for each in tensors))
        return moved + copied if refused.isdisjoint(places) else inf

    def _copy_us(self, unit: int, nbytes: float) -> float:
        on = self.problem.units[unit]
        return 2 * on.launch_us + 2 * nbytes * on.us_per_byte
