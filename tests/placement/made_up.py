"""Planning problems on machines that do not exist: built from a few words, or at random."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from coexec.placement.problem import Problem, Schedule, Task, Tensor, Unit

INF = float("inf")
KB = 1000


def problem(
    times: Mapping[str, Sequence[float]],
    edges: Sequence[tuple[str, str]] = (),
    *,
    units: Sequence[Unit] = (Unit("a"), Unit("b")),
    latency: float = 0.0,
    us_per_byte: float = 0.0,
    nbytes: int = KB,
    slowdown: float = 1.0,
    host: bool = False,
) -> Problem:
    """Tasks in an executable order with a time per unit; ``edges`` from producer to consumer.

    A link between any two units takes ``latency`` and ``us_per_byte``. With ``host``, tasks without
    producers read a tensor of the host, and the host fetches what nobody reads; its links are like
    the others.
    """
    names = list(times)
    consumers = {name: [b for a, b in edges if a == name] for name in names}
    producers = {name: [a for a, b in edges if b == name] for name in names}
    tensors = [
        Tensor(name, nbytes, index, fetched=host and not consumers[name])
        for index, name in enumerate(names)
    ]
    inputs = {name: [names.index(a) for a in dict.fromkeys(producers[name])] for name in names}
    if host:
        for name in names:
            if not producers[name]:
                inputs[name].append(len(tensors))
                tensors.append(Tensor(f"{name}.in", nbytes, None))
    tasks = [Task(n, "Op", tuple(inputs[n]), (i,)) for i, n in enumerate(names)]
    count, places = len(units), len(units) + 1
    factors = np.full((count, count), slowdown)
    np.fill_diagonal(factors, 1.0)
    return Problem(
        units=tuple(units),
        tasks=tuple(tasks),
        tensors=tuple(tensors),
        time_us=np.array([times[name] for name in names], float).reshape(len(names), count),
        latency_us=np.full((places, places), latency),
        us_per_byte=np.full((places, places), us_per_byte),
        slowdown=factors,
        time_sigma=np.zeros((len(names), count)),
        latency_sigma=np.zeros((places, places)),
    )


def random_problem(
    rng: np.random.Generator,
    tasks: int,
    units: int,
    *,
    refusals: float = 0.2,
    window: int = 8,
    shared: bool = False,
) -> Problem:
    """A random DAG: each task reads up to three of the ``window`` tasks before it.

    Some tasks read a tensor of the host or a parameter that a later task updates; what nobody reads
    is fetched. With ``shared``, the first two units share silicon.
    """
    tensors = [Tensor(f"t{i}", int(rng.integers(1, 5)) * KB, i) for i in range(tasks)]
    read: set[int] = set()
    inputs: list[tuple[int, ...]] = []
    for index in range(tasks):
        first = max(0, index - window)
        count = int(rng.integers(0, min(3, index - first) + 1))
        operands = [int(t) for t in rng.permutation(np.arange(first, index))[:count]]
        read.update(operands)
        if rng.random() < 0.2:
            home = int(rng.integers(index, tasks)) if rng.random() < 0.5 else None
            operands.append(len(tensors))
            tensors.append(Tensor(f"in{index}", int(rng.integers(1, 5)) * KB, None, home))
        inputs.append(tuple(operands))
    for index in range(tasks):
        if index not in read:
            old = tensors[index]
            tensors[index] = Tensor(old.name, old.nbytes, old.producer, fetched=True)
    time_us = rng.integers(1, 100, (tasks, units)).astype(float)
    refused = rng.random((tasks, units)) < refusals
    refused[np.arange(tasks), rng.integers(0, units, tasks)] = False
    time_us[refused] = INF
    places = units + 1
    silicon = [frozenset({"core"}) if shared and i < 2 else frozenset[str]() for i in range(units)]
    return Problem(
        units=tuple(Unit(f"u{i}", silicon[i]) for i in range(units)),
        tasks=tuple(Task(f"n{i}", "Op", inputs[i], (i,)) for i in range(tasks)),
        tensors=tuple(tensors),
        time_us=time_us,
        latency_us=rng.integers(0, 20, (places, places)).astype(float),
        us_per_byte=rng.integers(0, 10, (places, places)) / KB,
        slowdown=np.ones((units, units)),
        time_sigma=np.full((tasks, units), 0.1),
        latency_sigma=np.full((places, places), 0.3),
    )


def every_schedule(of: Problem) -> Iterator[Schedule]:
    """All valid schedules of a tiny problem: every order, every choice of processors."""
    choices = [np.flatnonzero(np.isfinite(row)).tolist() for row in of.time_us]
    orders = [order for order in itertools.permutations(range(len(of.tasks))) if _valid(of, order)]
    for units in itertools.product(*choices):
        for order in orders:
            yield Schedule(tuple(units), order)


def _valid(of: Problem, order: Sequence[int]) -> bool:
    position = {task: place for place, task in enumerate(order)}
    return all(
        producer is None or position[producer] < position[index]
        for index, task in enumerate(of.tasks)
        for producer in (of.tensors[tensor].producer for tensor in task.inputs)
    )
