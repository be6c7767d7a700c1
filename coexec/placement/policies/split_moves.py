"""What moves between two neighbours in a chain, from each state of one to each state of the other.

Nothing where cuts agree, a halo where windows reach over them, all of it where a whole value is
wanted. All pairs of states are computed at once: S states before, T after, P processors. Where a
processor would have to cut or join that refuses to, a move is infinitely long: what another one can
do for it then, a timeline may still find (:mod:`coexec.placement.divide`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coexec.base.window import Window
from coexec.placement.policies.split_states import State, States
from coexec.placement.problem import Division, Matrix, Problem, Tensor

AGAIN = 2.0
"""How many times the least a halo that is computed takes: tasks before it compute more, too."""


class Moves:
    """Costs of moves in microseconds."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        count = len(problem.units)
        self._latency = np.array(problem.latencies)[:count, :count]
        self._byte_time = np.array(problem.byte_times)[:count, :count]
        self._launch = np.array([unit.launch_us for unit in problem.units])
        self._us_per_byte = np.array([unit.us_per_byte for unit in problem.units])

    def between(self, index: int, before: States, after: States) -> Matrix:
        """From the task before ``index`` (S rows) to that one (T columns)."""
        costs = np.zeros((len(before.each), len(after.each)))
        for tensor in self.problem.tasks[index].inputs:
            if self.problem.tensors[tensor].producer == index - 1:
                costs = np.maximum(costs, self.of(index, tensor, before, after))
        return costs

    def with_host(self, index: int, states: States) -> Matrix:
        """What it takes longer that data comes from the host, and goes there (S)."""
        task, tensors = self.problem.tasks[index], self.problem.tensors
        fed = [t for t in task.inputs if tensors[t].producer is None and tensors[t].home is None]
        fetched = [t for t in task.outputs if tensors[t].fetched]
        if not fed and not fetched:
            return np.zeros(len(states.each))
        return np.array(
            [self._from_and_to_host(index, fed, fetched, state) for state in states.each]
        )

    def _from_and_to_host(
        self, index: int, fed: list[int], fetched: list[int], state: State
    ) -> float:
        """What a state takes longer: its shares come and go beside each other, each with its parts.

        The host puts what it fetches together from where it is.
        """
        host, task = self.problem.host, self.problem.tasks[index]
        if state.shares is None:
            into = max((self.problem.delay(t, host, state.unit) for t in fed), default=0.0)
            return into + max((self.problem.delay(t, state.unit, host) for t in fetched), default=0)
        division = self.problem.divisions[index][state.shares.division]
        windows = dict(zip(task.inputs, division.windows, strict=True))
        longest = 0.0
        for (unit, start, stop), us in zip(state.shares.bounds, state.each_us, strict=True):
            parts = [(t, _part(windows[t], start, stop)) for t in fed]
            into = max((self._moved(t, host, unit, part) for t, part in parts), default=0.0)
            made = (stop - start) / division.count
            out = max((self._moved(t, unit, host, made) for t in fetched), default=0.0)
            longest = max(longest, into + us + out)
        return longest - state.time_us

    def _moved(self, tensor: int, source: int, target: int, part: float) -> float:
        """Microseconds until a part of a tensor is there."""
        nbytes = self.problem.tensors[tensor].nbytes * part
        return self.problem.latencies[source][target] + (
            nbytes * self.problem.byte_times[source][target]
        )

    def of(self, index: int, tensor: int, before: States, after: States) -> Matrix:
        """Until every state of a task has what it reads of a tensor (S, T) made in ``before``."""
        of = self.problem.tensors[tensor]
        there = after.fractions > 0
        gathered = self._gathered(of, before)
        costs = _most(np.where(there, gathered[:, None, :], -np.inf))
        if not (after.ways >= 0).any():
            return costs
        joined = _most(np.where(there, self._joined(of, 1.0), -np.inf))
        scattered = self._scattered(of, after)[before.units]
        place = self.problem.tasks[index].inputs.index(tensor)
        for way, division in enumerate(self.problem.divisions.get(index, ())):
            window = division.windows[place]
            if window is None:
                continue
            columns = np.flatnonzero(after.ways == way)
            cut = before.ways[:, None] >= 0
            found = np.where(cut, costs + joined, scattered)[:, columns]
            self._keep_apart(tensor, window, (before, after), columns, found)
            costs[:, columns] = found
        return costs

    def _keep_apart(
        self,
        tensor: int,
        window: Window,
        states: tuple[States, States],
        columns: np.ndarray,
        costs: Matrix,
    ) -> None:
        """Write costs (S, columns) where shares before and after are cut alike."""
        before, after = states
        along = (before.axes == window.axis)[:, None]
        same = along & (before.ratios[:, None] == after.ratios[columns])
        halo = (window.reach - window.step) / window.extent
        if halo <= 0:
            costs[same] = 0.0
            return
        of = self.problem.tensors[tensor]
        sent = self._exchanged(of, halo, after.fractions[columns])
        assert of.producer is not None
        made = self.problem.divisions.get(of.producer, ())
        for row, column in np.argwhere(same).tolist():
            source = before.each[row]
            again = AGAIN * _again(made[before.ways[row]], source, window)
            costs[row, column] = min(float(sent[column]), again)

    def _gathered(self, of: Tensor, states: States) -> Matrix:
        """Until a value is whole on each processor (S, P)."""
        parts = states.fractions[:, :, None]
        arriving = self._latency + of.nbytes * parts * self._byte_time
        arrived = _most(np.where(parts > 0, arriving, -np.inf), axis=1)
        return np.where(states.ways[:, None] >= 0, arrived + self._joined(of, 1.0), arrived)

    def _scattered(self, of: Tensor, states: States) -> Matrix:
        """Until shares have their parts of a value on a processor: cut one by one (P, T)."""
        parts = states.fractions
        there = parts > 0
        cuts = 2 * of.nbytes * parts * self._us_per_byte[:, None, None]
        cuts = self._launches(of.uncut)[:, None, None] + cuts
        sent = self._latency[:, None, :] + of.nbytes * parts * self._byte_time[:, None, :]
        return _sum(np.where(there, cuts, 0.0)) + _most(np.where(there, sent, -np.inf))

    def _exchanged(self, of: Tensor, halo: float, parts: Matrix) -> Matrix:
        """Cut a halo, send it to the neighbour, join it there to what that has (T)."""
        there = parts > 0
        pairs = there[:, :, None] & there[:, None, :] & ~np.eye(parts.shape[1], dtype=bool)
        sent = self._latency + of.nbytes * halo * self._byte_time
        able = replace(of, unjoined=of.unjoined | of.uncut)
        copied = np.where(there, self._joined(able, parts), -np.inf)
        return _most(_most(np.where(pairs, sent, -np.inf))) + _most(copied)

    def _joined(self, of: Tensor, share: float | Matrix) -> Matrix:
        """A part of a tensor joined within each processor: copied, where it does not refuse."""
        return self._launches(of.unjoined) + 2 * of.nbytes * share * self._us_per_byte

    def _launches(self, refused: frozenset[int]) -> Matrix:
        """What a copy takes by processor whatever its size: for ever where that refuses (P)."""
        launches = self._launch.copy()
        launches[list(refused)] = np.inf
        return launches


def _part(window: Window | None, start: int, stop: int) -> float:
    """The part of a tensor that units of a result read through a window; all of it without."""
    if window is None:
        return 1.0
    first, last = window.span(start, stop)
    return (last - first) / window.extent


def _again(made: Division, source: State, window: Window) -> float:
    """What shares take longer if they compute the halo, too (see :mod:`overlap`)."""
    assert source.shares is not None
    more = -(-(window.reach - window.step) // (2 * made.quantum))
    return max(
        made.time_us(unit, min(count + more, made.count)) - made.time_us(unit, count)
        for unit, count in source.shares.units
    )


def _most(values: Matrix, axis: int = -1) -> Matrix:
    found: Matrix = values.max(axis=axis)
    return found


def _sum(values: Matrix) -> Matrix:
    found: Matrix = values.sum(axis=-1)
    return found
