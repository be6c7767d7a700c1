"""Where the time of a training step goes: the kernels of one step, summed by operator and kernel.

An example: python bench/profile_step.py resnet18 opencl:pocl --batch 32
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

import coexec
from coexec import zoo
from coexec.core.events import FREE, Event


@dataclass
class Sum:
    """Launches of one kind over all traced steps."""

    launches: int = 0
    ns: int = 0
    flop: int = 0
    bytes: int = 0

    def add(self, event: Event) -> None:
        self.launches += 1
        self.ns += event.duration_ns
        self.flop += event.flop
        self.bytes += event.bytes


def traced_events(name: str, processor: str, batch: int, steps: int) -> list[Event]:
    """Kernels and copies of a few steps after a warm-up."""
    trainer = coexec.Trainer(
        coexec.load(zoo.build(name, batch=batch, classes=10)),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(0.01, momentum=0.9),
        [processor],
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *zoo.CATALOG[name].input_shape), np.float32)
    labels = rng.integers(0, 10, batch)
    for _ in range(3):
        trainer.step({"x": x}, labels)
    trace = coexec.Trace()
    for _ in range(steps):
        trainer.step({"x": x}, labels, trace)
    return [event for event in trace.leaves() if event.kind != FREE]


def show(title: str, events: Iterable[tuple[str, Event]], steps: int, rows: int) -> None:
    """A table of the costliest keys; times are per step."""
    sums: dict[str, Sum] = defaultdict(Sum)
    for key, event in events:
        sums[key].add(event)
    total = sum(entry.ns for entry in sums.values())
    table = Table(title=f"{title}: {total / steps / 1e6:.2f} ms a step")
    table.add_column("what", no_wrap=True)
    for column in ("launches", "ms", "share", "GFLOP/s", "GB/s"):
        table.add_column(column, justify="right")
    for key, entry in sorted(sums.items(), key=lambda item: -item[1].ns)[:rows]:
        table.add_row(
            key,
            str(entry.launches // steps),
            f"{entry.ns / steps / 1e6:.3f}",
            f"{entry.ns / total:.1%}",
            f"{entry.flop / max(entry.ns, 1):.1f}",
            f"{entry.bytes / max(entry.ns, 1):.1f}",
        )
    Console(width=130).print(table)


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=list(zoo.CATALOG))
    parser.add_argument("processor", help="spec, such as opencl:pocl")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="traced steps")
    parser.add_argument("--rows", type=int, default=25)
    arguments = parser.parse_args()
    events = traced_events(arguments.model, arguments.processor, arguments.batch, arguments.steps)
    title = f"{arguments.model}, batch {arguments.batch}, {arguments.processor}"
    by_kernel = ((f"{e.phase:9} {e.operator or e.kind}", e) for e in events)
    show(f"{title}, by kernel", by_kernel, arguments.steps, arguments.rows)
    by_node = ((f"{e.name}  {e.operator}", e) for e in events)
    show(f"{title}, by node", by_node, arguments.steps, arguments.rows)


if __name__ == "__main__":
    main()
