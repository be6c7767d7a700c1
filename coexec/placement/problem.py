"""The planning problem without any device: tasks, tensors, processors, times and links as numbers.

Everything that decides a plan stands here, so that policies are functions of it alone and can be
tested on machines that do not exist. What the model says, and what it does not:

* A processor does one task at a time. Processors that share a resource (the same cores) take turns;
  others overlap, each slowed down by ``slowdown`` while the other is busy.
* A tensor goes from where it is produced to where it is wanted once per destination, as soon as it
  is there. A move takes a latency (synchronisation included) and time per byte. The part of it that
  copies keep a processor from its tasks is that processor's (``Unit.reads``, ``Unit.writes``);
  beside that moves do not wait for each other.
* One thread of the host hands everything over, where it is known what that takes it: no task starts
  before. Where processors occupy all cores, its exchanges take time of those that wait for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coexec.base.window import Window

Matrix = NDArray[np.float64]
NO_OVERLAP = (0, 0)


@dataclass(frozen=True)
class Unit:
    """A processor; ``resources`` is the silicon it occupies, beside itself.

    A copy within it (a part of a tensor cut out, parts joined) takes ``launch_us`` and
    ``us_per_byte`` for each byte that it reads or writes. Going on after a result for others takes
    it ``restart_us``: that ended its launch, and the next one switches to it again. ``reads`` and
    ``writes`` are microseconds, and those per byte, that a copy to the host or from there keeps it
    from tasks: part of the time of the move.
    """

    name: str
    resources: frozenset[str] = frozenset()
    launch_us: float = 0.0
    us_per_byte: float = 0.0
    restart_us: float = 0.0
    reads: tuple[float, float] = (0.0, 0.0)
    writes: tuple[float, float] = (0.0, 0.0)

    def read_us(self, nbytes: int) -> float:
        """How long a copy to the host occupies it."""
        return self.reads[0] + nbytes * self.reads[1]

    def write_us(self, nbytes: int) -> float:
        """How long a copy from the host occupies it."""
        return self.writes[0] + nbytes * self.writes[1]


@dataclass(frozen=True)
class Task:
    """A node: the numbers of the tensors that it reads (each once) and makes."""

    name: str
    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """Data of ``nbytes``. Without ``producer`` it is there before anything runs.

    It is then on the host, or (``home``: a task) where that task runs: a parameter lies where it
    is updated. The host wants what is ``fetched``, and looks at a ``gate`` (fetched, too) before it
    hands over what reads it. ``uncut`` and ``unjoined`` are the processors that refuse to cut parts
    out of it, and to join it of parts.
    """

    name: str
    nbytes: int
    producer: int | None = None
    home: int | None = None
    fetched: bool = False
    gate: bool = False
    uncut: frozenset[int] = frozenset()
    unjoined: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Division:
    """A way to divide a task: ``count`` units of ``quantum`` elements along ``axis`` of its result.

    ``windows`` tells what units read of each tensor of ``Task.inputs`` (``None``: all of it), and
    ``curves``, by processor, what shares cost: points of a share of the whole (0 to 1, rising) and
    microseconds; between two of them time is linear. No points: the processor refuses shares.
    """

    axis: int
    count: int
    windows: tuple[Window | None, ...]
    curves: tuple[tuple[tuple[float, float], ...], ...]
    quantum: int = 1

    def time_us(self, unit: int, units: int) -> float:
        """Time of a share of so many units on a processor; infinite where it refuses."""
        return self._times[unit][units]

    @cached_property
    def times_us(self) -> Matrix:
        """By processor (rows), the times of a share of 0, 1, 2, ... units; they rise."""
        parts = _parts(self.count)
        rows = np.empty((len(self.curves), self.count + 1))
        for row, curve in zip(rows, self.curves, strict=True):
            shares, times = zip(*(curve or ((0.0, np.inf),)), strict=True)
            row[:] = np.interp(parts, shares, times)
        return rows

    @cached_property
    def _times(self) -> list[list[float]]:
        """:attr:`times_us` as lists, which single elements are read from several times faster."""
        return _lists(self.times_us)


@lru_cache(maxsize=64)
def _parts(count: int) -> Matrix:
    """0, 1, 2, ... units of so many as shares of the whole."""
    return np.arange(count + 1) / count


@dataclass(frozen=True)
class Shares:
    """A divided task: a choice among its divisions, and how many units each processor has.

    ``units`` are pairs (processor, units) in the order in which they lie along the axis. Each share
    also computes the ``overlap`` next units of its neighbours: before its own, and behind them.
    """

    division: int
    units: tuple[tuple[int, int], ...]
    overlap: tuple[int, int] = NO_OVERLAP

    @property
    def bounds(self) -> list[tuple[int, int, int]]:
        """Processor, first unit and the one behind the last of each share."""
        found, start = [], 0
        for unit, count in self.units:
            found.append((unit, start, start + count))
            start += count
        return found

    @property
    def computed(self) -> list[tuple[int, int, int]]:
        """:attr:`bounds` with what is computed twice."""
        count = sum(units for _, units in self.units)
        before, behind = self.overlap
        return [
            (unit, max(start - before, 0), min(stop + behind, count))
            for unit, start, stop in self.bounds
        ]


@dataclass(frozen=True, eq=False)
class Problem:
    """Tasks in an executable order, with times in microseconds.

    ``time_us[t, p]`` is the median time of task t on processor p, infinite where p refuses it.
    ``latency_us[p, q]`` and ``us_per_byte[p, q]`` are those of a move from p to q; the last row
    and column are the host's. ``slowdown[p, q]`` is how many times longer a task on p takes while
    q is busy. ``time_sigma`` and ``latency_sigma`` are standard deviations of logarithms.
    ``divisions`` are, by task, the ways to divide it. ``exchange_us[p, q]`` is the host's time for
    a task on q that waits for p, beside that of its launch; without it nothing is said of the host.
    If ``host_shares``, no core is left for the host: that time is taken from q; if ``host_first``,
    its thread is on the core of the schedule's first processor, which begins once all is handed
    over. It may do the work of processor ``caller`` itself: then all that it hands over takes time
    of that.
    ``corrections`` are how many times longer than their timelines plans take that spread work in a
    way.

    Raises:
        ValueError: arrays of the wrong shape, negative or NaN times, a task before what it reads,
            or a task that every processor refuses.
    """

    units: tuple[Unit, ...]
    tasks: tuple[Task, ...]
    tensors: tuple[Tensor, ...]
    time_us: Matrix
    latency_us: Matrix
    us_per_byte: Matrix
    slowdown: Matrix
    time_sigma: Matrix
    latency_sigma: Matrix
    divisions: Mapping[int, tuple[Division, ...]] = field(default_factory=dict)
    exchange_us: Matrix | None = None
    corrections: Mapping[str, float] = field(default_factory=dict)
    host_shares: bool = False
    host_first: bool = False
    caller: int | None = None

    def __post_init__(self) -> None:
        tasks, units = len(self.tasks), len(self.units)
        places = (units + 1, units + 1)
        _require_shape("time_us", self.time_us, (tasks, units))
        _require_shape("time_sigma", self.time_sigma, (tasks, units))
        _require_shape("latency_us", self.latency_us, places)
        _require_shape("us_per_byte", self.us_per_byte, places)
        _require_shape("latency_sigma", self.latency_sigma, places)
        _require_shape("slowdown", self.slowdown, (units, units))
        if self.exchange_us is not None:
            _require_shape("exchange_us", self.exchange_us, (units, units))
            _require(bool((self.exchange_us >= 0).all()), "exchange_us has a negative value")
        for name in ("time_us", "latency_us", "us_per_byte"):
            values = getattr(self, name)
            _require(bool((values >= 0).all()), f"{name} has a value that is negative or no number")
        _require(bool((self.slowdown > 0).all()), "slowdown must be positive")
        producers = [-1 if t.producer is None else t.producer for t in self.tensors]
        for index, task in enumerate(self.tasks):
            if any(producers[tensor] >= index for tensor in task.inputs):
                raise ValueError(f"task {task.name!r} comes before what it reads")
            if len(set(task.inputs)) < len(task.inputs):
                raise ValueError(f"{task.name!r} reads twice")
        refused = np.flatnonzero(np.isinf(self.time_us).all(axis=1))
        _require(not len(refused), f"no processor executes {[self.tasks[t].name for t in refused]}")

    @property
    def host(self) -> int:
        """Number of the host in rows and columns of links."""
        return len(self.units)

    @cached_property
    def times(self) -> list[list[float]]:
        """``time_us`` as lists, which single elements are read from several times faster."""
        return _lists(self.time_us)

    @cached_property
    def latencies(self) -> list[list[float]]:
        """``latency_us`` as lists, zero within a processor."""
        latency = self.latency_us.copy()
        np.fill_diagonal(latency, 0.0)
        return _lists(latency)

    @cached_property
    def slowdowns(self) -> list[list[float]]:
        """``slowdown`` as lists."""
        return _lists(self.slowdown)

    @cached_property
    def exchanges(self) -> list[list[float]]:
        """``exchange_us`` as lists; nothing where it is not known."""
        count = len(self.units)
        return _lists(np.zeros((count, count)) if self.exchange_us is None else self.exchange_us)

    @cached_property
    def byte_times(self) -> list[list[float]]:
        """``us_per_byte`` as lists, zero within a processor."""
        rate = self.us_per_byte.copy()
        np.fill_diagonal(rate, 0.0)
        return _lists(rate)

    @cached_property
    def resources(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the resources that each processor occupies, itself among them."""
        names = sorted(set().union(*(unit.resources for unit in self.units)))
        first = len(self.units)
        numbers = {name: first + i for i, name in enumerate(names)}
        return tuple(
            (index, *(numbers[name] for name in sorted(unit.resources)))
            for index, unit in enumerate(self.units)
        )

    @property
    def resource_count(self) -> int:
        """How many resources there are."""
        return 1 + max(number for numbers in self.resources for number in numbers)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """Tasks that read each tensor."""
        found: list[list[int]] = [[] for _ in self.tensors]
        for index, task in enumerate(self.tasks):
            for tensor in task.inputs:
                found[tensor].append(index)
        return tuple(map(tuple, found))

    @cached_property
    def contended(self) -> bool:
        """Whether any processor slows another one down."""
        others = ~np.eye(len(self.units), dtype=bool)
        return bool((self.slowdown[others] != 1.0).any())

    def delay(self, tensor: int, source: int, target: int) -> float:
        """Microseconds until a tensor at ``source`` is at ``target`` (processors or the host)."""
        nbytes = self.tensors[tensor].nbytes
        return self.latencies[source][target] + nbytes * self.byte_times[source][target]

    def source(self, tensor: int, placed: Any) -> int:
        """Where a tensor is made or lies: a processor or the host; ``placed`` by task."""
        described = self.tensors[tensor]
        task = described.home if described.producer is None else described.producer
        return self.host if task is None else int(placed[task])


@dataclass(frozen=True)
class Schedule:
    """The processor of each task, and the order in which tasks take their processors.

    Tasks of ``shares`` are divided; ``units`` has the processor with the largest share of them.
    """

    units: tuple[int, ...]
    order: tuple[int, ...]
    shares: Mapping[int, Shares] = field(default_factory=dict)

    def without_overlaps(self) -> Schedule:
        """The same with shares that compute their own units only."""
        bare = {task: replace(each, overlap=NO_OVERLAP) for task, each in self.shares.items()}
        return replace(self, shares=bare)

    def check(self, problem: Problem) -> None:
        """Every task once, after what it reads, on a processor that executes it.

        Raises:
            ValueError: the first thing that is not so.
        """
        count = len(problem.tasks)
        _require(len(self.units) == count, f"{len(self.units)} places for {count} tasks")
        _require(sorted(self.order) == list(range(count)), "the order is not one of all tasks")
        position = {task: place for place, task in enumerate(self.order)}
        for index, task in enumerate(problem.tasks):
            known = 0 <= self.units[index] < len(problem.units)
            _require(known, f"task {task.name!r} is on no processor")
            finite = np.isfinite(problem.time_us[index, self.units[index]])
            _require(bool(finite), f"task {task.name!r} is on a processor that refuses it")
            for tensor in task.inputs:
                producer = problem.tensors[tensor].producer
                in_order = producer is None or position[producer] < position[index]
                _require(in_order, f"task {task.name!r} comes before what it reads")
        for index, shares in self.shares.items():
            _check_shares(problem, index, shares)


def _check_shares(problem: Problem, index: int, shares: Shares) -> None:
    name = problem.tasks[index].name
    ways = problem.divisions.get(index, ())
    _require(0 <= shares.division < len(ways), f"task {name!r} does not divide so")
    division = ways[shares.division]
    units = dict(shares.units)
    _require(len(units) == len(shares.units), f"a processor has two shares of task {name!r}")
    _require(
        min(units.values()) > 0 and sum(units.values()) == division.count,
        f"shares of task {name!r} are not {division.count} units",
    )
    _require(min(shares.overlap) >= 0, f"shares of task {name!r} overlap by {shares.overlap}")
    finite = all(np.isfinite(division.time_us(unit, n)) for unit, n in units.items())
    _require(finite, f"a share of task {name!r} is on a processor that refuses it")


def _lists(matrix: Matrix) -> list[list[float]]:
    rows: list[list[float]] = matrix.tolist()
    return rows


def _require_shape(name: str, array: Matrix, shape: tuple[int, int]) -> None:
    _require(array.shape == shape, f"{name} is {array.shape}, not {shape}")


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)
