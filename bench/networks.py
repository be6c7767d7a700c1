"""Planning problems as large as one likes: a made-up network on made-up processors."""

from __future__ import annotations

import numpy as np

from coexec.base.window import Window
from coexec.placement.problem import Division, Problem, Task, Tensor, Unit

CHANNELS, ROWS = 64, 56
SPEEDS = (1.0, 1.4, 3.0)
"""Of the processors; the fastest refuses every tenth task, as an NPU does."""
REFUSED = 10
LATENCY_US, US_PER_BYTE, LAUNCH_US, EXCHANGE_US = 60.0, 1e-4, 5.0, 140.0
BYTES = 4 * CHANNELS * ROWS * ROWS
BLOCK = ("Conv", "Relu", "Conv", "Add")
"""A convolution, its activation, a second convolution beside them, and the sum of both branches."""


def network(tasks: int, seed: int = 0) -> Problem:
    """A network of residual blocks with so many tasks; each task divides in channels and rows."""
    rng = np.random.default_rng(seed)
    tensors = [Tensor("x", BYTES, None)]
    nodes: list[Task] = []
    block_input = branch = 0
    for index in range(tasks):
        kind = BLOCK[index % len(BLOCK)]
        last = len(tensors) - 1
        reads = {"Relu": (last,), "Add": (branch, last)}.get(kind, (block_input,))
        tensors.append(Tensor(f"t{index}", BYTES, index, fetched=index == tasks - 1))
        nodes.append(Task(f"n{index}", kind, tuple(dict.fromkeys(reads)), (len(tensors) - 1,)))
        if kind == "Relu":
            branch = len(tensors) - 1
        if kind == "Add":
            block_input = len(tensors) - 1
    work = np.array([_work_us(node.operator) for node in nodes]) * rng.lognormal(0, 0.5, tasks)
    times = LAUNCH_US + work[:, None] / np.array(SPEEDS)
    times[::REFUSED, len(SPEEDS) - 1] = np.inf
    return _problem(nodes, tensors, times)


def _work_us(operator: str) -> float:
    return 2000.0 if operator == "Conv" else 100.0


def _problem(nodes: list[Task], tensors: list[Tensor], times: np.ndarray) -> Problem:
    units, places = len(SPEEDS), len(SPEEDS) + 1
    return Problem(
        units=tuple(Unit(f"p{i}", frozenset(), LAUNCH_US, US_PER_BYTE) for i in range(units)),
        tasks=tuple(nodes),
        tensors=tuple(tensors),
        time_us=times,
        latency_us=np.full((places, places), LATENCY_US),
        us_per_byte=np.full((places, places), US_PER_BYTE),
        slowdown=np.ones((units, units)),
        time_sigma=np.zeros((len(nodes), units)),
        latency_sigma=np.zeros((places, places)),
        divisions={index: _divisions(node, times[index]) for index, node in enumerate(nodes)},
        exchange_us=np.full((units, units), EXCHANGE_US),
    )


def _divisions(task: Task, times: np.ndarray) -> tuple[Division, ...]:
    """By output channels, of which a convolution reads all inputs, and by rows with their halo."""
    convolves = task.operator == "Conv"
    by_channel = None if convolves else Window(1, CHANNELS)
    by_row = Window(2, ROWS, 1, 1, 3) if convolves else Window(2, ROWS)
    curves = tuple(
        ((0.0, LAUNCH_US), (1.0, float(time))) if np.isfinite(time) else () for time in times
    )
    count = len(task.inputs)
    return (
        Division(1, CHANNELS, (by_channel,) * count, curves),
        Division(2, ROWS, (by_row,) * count, curves),
    )
