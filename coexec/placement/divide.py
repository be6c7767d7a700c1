"""A problem and a schedule with shares as a plain problem: shares, cuts and joins are tasks.

The numbers' side of the pass ``split_operator``: where it makes a node, this makes a task. A
processor that refuses to cut or to join a tensor is never the one that does: see :meth:`_able`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coexec.base.pieces import sources
from coexec.base.window import Window
from coexec.placement.problem import Problem, Schedule, Shares, Task, Tensor

INF = float("inf")


@dataclass(frozen=True)
class Plain:
    """``origin`` is, by task of the new problem, the task that it is or belongs to."""

    problem: Problem
    schedule: Schedule
    origin: tuple[int, ...]


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor, elements ``start`` to ``stop``, made on ``unit``.

    It has the elements ``first`` to ``last``: those, and what it overlaps its neighbours by.
    """

    tensor: int
    start: int
    stop: int
    unit: int
    first: int
    last: int


@dataclass(frozen=True)
class _Parts:
    axis: int
    pieces: tuple[_Piece, ...]


def divide(problem: Problem, schedule: Schedule) -> Plain:
    """The problem in which every share is a task of its own; as it is where there are none."""
    if not schedule.shares:
        return Plain(problem, schedule, tuple(range(len(problem.tasks))))
    return _Divider(problem, schedule).run()


class _Divider:
    def __init__(self, problem: Problem, schedule: Schedule) -> None:
        self.problem = problem
        self.schedule = schedule
        self.tasks: list[Task] = []
        self.tensors: list[Tensor] = []
        self.times: list[list[float]] = []
        self.sigmas: list[list[float]] = []
        self.units: list[int] = []
        self.origin: list[int] = []
        self.current = 0
        # The new task (of a divided one: a share) where a parameter lives, by old task.
        self.homes: dict[int, int] = {}
        # New numbers of tensors that are whole, parts of those that are divided, joins and cuts.
        self.numbers: dict[int, int] = {}
        self.parts: dict[int, _Parts] = {}
        self.joins: dict[tuple[int, int], int] = {}
        self.cuts: dict[tuple[int, int, int, int], int] = {}

    def run(self) -> Plain:
        for number, tensor in enumerate(self.problem.tensors):
            if tensor.producer is None:
                self.numbers[number] = self._tensor(tensor)
        for index in self.schedule.order:
            self.current = index
            shares = self.schedule.shares.get(index)
            if shares is None:
                self._keep(index)
            else:
                self._share(index, shares)
        self._join_fetched()
        self._remap_homes()
        problem = replace(
            self.problem,
            tasks=tuple(self.tasks),
            tensors=tuple(self.tensors),
            time_us=np.array(self.times),
            time_sigma=np.array(self.sigmas),
            divisions={},
        )
        schedule = Schedule(tuple(self.units), tuple(range(len(self.tasks))))
        return Plain(problem, schedule, tuple(self.origin))

    def _keep(self, index: int) -> None:
        task, unit = self.problem.tasks[index], self.schedule.units[index]
        inputs = [self._whole(tensor, unit) for tensor in task.inputs]
        made = []
        for tensor in task.outputs:
            self.numbers[tensor] = self._tensor(self.problem.tensors[tensor], len(self.tasks))
            made.append(self.numbers[tensor])
        self._task(Task(task.name, task.operator, tuple(inputs), tuple(made)), unit)
        self.homes[index] = len(self.tasks) - 1
        self.times[-1] = self.problem.times[index]
        self.sigmas[-1] = self.problem.time_sigma[index].tolist()

    def _share(self, index: int, shares: Shares) -> None:
        task = self.problem.tasks[index]
        division = self.problem.divisions[index][shares.division]
        operands = list(zip(task.inputs, division.windows, strict=True))
        computed = shares.computed
        # What others wait for comes first: cuts of all operands, then joins and shares.
        cuts = [
            [
                None
                if window is None
                else self._cuts(tensor, window, window.span(start, stop), unit)
                for tensor, window in operands
            ]
            for unit, start, stop in computed
        ]
        pieces: list[list[_Piece]] = [[] for _ in task.outputs]
        for owned, (unit, start, stop), read in zip(shares.bounds, computed, cuts, strict=True):
            count = stop - start
            inputs = []
            for (tensor, window), parts in zip(operands, read, strict=True):
                if window is None or parts is None:
                    inputs.append(self._whole(tensor, unit))
                else:
                    inputs.append(self._part(parts, tensor, window.span(start, stop), unit))
            name = f"{task.name}/{self.problem.units[unit].name}"
            made = [
                self._part_of(whole, name, whole.nbytes * count // division.count, len(self.tasks))
                for whole in (self.problem.tensors[result] for result in task.outputs)
            ]
            inputs = list(dict.fromkeys(inputs))
            self._task(Task(name, task.operator, tuple(inputs), tuple(made)), unit)
            self.homes[index] = len(self.tasks) - 1
            self.times[-1][unit] = division.time_us(unit, count)
            self.sigmas[-1][unit] = float(self.problem.time_sigma[index, unit])
            own = (owned[1] * division.quantum, owned[2] * division.quantum)
            has = (start * division.quantum, stop * division.quantum)
            for number, each in zip(made, pieces, strict=True):
                each.append(_Piece(number, *own, unit, *has))
        for result, each in zip(task.outputs, pieces, strict=True):
            self.parts[result] = _Parts(division.axis, tuple(each))

    def _part(self, cuts: list[int], tensor: int, span: tuple[int, int], unit: int) -> int:
        """Elements of a tensor for a share, joined where it is read."""
        if len(cuts) == 1:
            return cuts[0]
        name = f"{self.problem.tensors[tensor].name}[{span[0]}:{span[1]}]"
        return self._join(cuts, name, unit)

    def _cuts(self, tensor: int, window: Window, span: tuple[int, int], unit: int) -> list[int]:
        """The parts of a tensor that make up some elements of it, cut where it is."""
        start, stop = span
        known = self.parts.get(tensor)
        if known is None or known.axis != window.axis:
            whole = self._whole(tensor, unit)
            place = self._place(whole, unit)
            piece = _Piece(whole, 0, window.extent, place, 0, window.extent)
            return [self._cut(piece, start, stop)]
        pieces = [(p.unit, p.start, p.stop, p.first, p.last) for p in known.pieces]
        return [
            self._cut(known.pieces[number], first, last)
            for number, first, last in sources(pieces, start, stop, unit)
        ]

    def _place(self, number: int, reader: int) -> int:
        """Where a tensor is cut: where it is made; inputs and parameters by who reads them."""
        tensor = self.tensors[number]
        return reader if tensor.producer is None else self.units[tensor.producer]

    def _cut(self, piece: _Piece, start: int, stop: int) -> int:
        if (start, stop) == (piece.first, piece.last):
            return piece.tensor
        key = (piece.tensor, start, stop, piece.unit)
        if key not in self.cuts:
            whole = self.tensors[piece.tensor]
            nbytes = whole.nbytes * (stop - start) // (piece.last - piece.first)
            name = f"{whole.name}[{start}:{stop}]"
            if whole.producer is None and whole.home is None:
                # The processor that reads it copies no more than that from the host.
                self.cuts[key] = self._part_of(whole, name, nbytes)
                return self.cuts[key]
            place = self._able(whole.uncut, [piece.unit])
            self.cuts[key] = self._copy("Slice", (piece.tensor,), name, nbytes, place)
        return self.cuts[key]

    def _whole(self, tensor: int, unit: int) -> int:
        """A tensor in one piece; who reads it joins the parts of a divided one."""
        known = self.parts.get(tensor)
        if known is None:
            return self.numbers[tensor]
        pieces = [self._cut(piece, piece.start, piece.stop) for piece in known.pieces]
        place = self._joiner(pieces, unit)
        if (tensor, place) not in self.joins:
            name = self.problem.tensors[tensor].name
            self.joins[tensor, place] = self._join(pieces, name, place)
        return self.joins[tensor, place]

    def _join(self, parts: list[int], name: str, unit: int) -> int:
        if len(parts) == 1:
            return parts[0]
        nbytes = sum(self.tensors[part].nbytes for part in parts)
        return self._copy("Concat", tuple(parts), name, nbytes, self._joiner(parts, unit))

    def _joiner(self, parts: list[int], reader: int) -> int:
        """Who joins parts for a reader: itself, else the maker of most that is able to."""
        if not self.tensors[parts[0]].unjoined:
            return reader
        found = sorted((self.tensors[part] for part in parts), key=lambda each: -each.nbytes)
        makers = [self.units[part.producer] for part in found if part.producer is not None]
        return self._able(found[0].unjoined, [reader, *makers])

    def _able(self, refused: frozenset[int], wanted: list[int]) -> int:
        """The first of ``wanted`` that does not refuse, else the first of all processors."""
        others = range(len(self.problem.units))
        return next((unit for unit in (*wanted, *others) if unit not in refused), wanted[0])

    def _copy(self, kind: str, inputs: tuple[int, ...], name: str, nbytes: int, unit: int) -> int:
        made = self._part_of(self.tensors[inputs[0]], name, nbytes, len(self.tasks))
        self._task(Task(name, kind, inputs, (made,)), unit)
        on = self.problem.units[unit]
        self.times[-1][unit] = on.launch_us + 2 * nbytes * on.us_per_byte
        return made

    def _task(self, task: Task, unit: int) -> None:
        """A task that no processor takes yet; the caller gives it its time."""
        self.tasks.append(task)
        self.units.append(unit)
        self.origin.append(self.current)
        self.times.append([INF] * len(self.problem.units))
        self.sigmas.append([0.0] * len(self.problem.units))

    def _part_of(self, whole: Tensor, name: str, nbytes: int, producer: int | None = None) -> int:
        """A part of a tensor, which those cut and join that do so with all of it."""
        part = Tensor(name, nbytes, uncut=whole.uncut, unjoined=whole.unjoined)
        return self._tensor(part, producer)

    def _tensor(self, tensor: Tensor, producer: int | None = None) -> int:
        self.tensors.append(replace(tensor, producer=producer) if producer is not None else tensor)
        return len(self.tensors) - 1

    def _join_fetched(self) -> None:
        """The host wants values whole: joined by a reader that has done so, else by itself."""
        for number, parts in self.parts.items():
            if self.problem.tensors[number].fetched:
                known = [joined for (tensor, _), joined in self.joins.items() if tensor == number]
                pieces = (self._cut(piece, piece.start, piece.stop) for piece in parts.pieces)
                for wanted in known[:1] or pieces:
                    self.tensors[wanted] = replace(self.tensors[wanted], fetched=True)

    def _remap_homes(self) -> None:
        for number, tensor in enumerate(self.tensors):
            if tensor.producer is None and tensor.home is not None:
                self.tensors[number] = replace(tensor, home=self.homes[tensor.home])
