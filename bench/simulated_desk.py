"""What the simulation says of a measured PC, beside the PC itself.

coexec devices --measure --save desk.toml; python -m bench.simulated_desk desk.toml
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

import coexec
from coexec import zoo
from coexec.core.types import Array
from coexec.simulate import SINGLE, Setup, Subject, simulate
from coexec.steps.builder import Recipe

INFERENCE = ("squeezenet", "mobilenetv2", "resnet18_224", "densenet121", "vit_tiny", "sensor_cnn")
TRAINING = (("lenet5", 32), ("sensor_cnn", 64), ("resnet18", 8))
"""Networks with the batch of a step: small ones, as a step's kernels are compiled first."""
PROCESSORS = ("opencl:intel", "opencl:pocl", "ort:cpu")
CLASSES, RUNS, SECONDS = 10, 5, 1.0


@dataclass(frozen=True)
class Line:
    """One model: what is predicted and the median run of each processor that runs it, in ms."""

    work: str
    predicted_ms: float
    real_ms: dict[str, float]

    @property
    def error(self) -> float:
        """Of the prediction against the fastest processor."""
        return self.predicted_ms / min(self.real_ms.values()) - 1


def inference(name: str, machine: str, processors: tuple[str, ...]) -> Line:
    """A run of one sample."""
    model = coexec.load(zoo.build(name, batch=1))
    feeds = {"x": sample(name, 1)}
    real = {}
    for processor in processors:
        session = coexec.compile(model, [processor])
        real[processor] = median_ms(partial(session.run, feeds))
    return Line(f"{name}, inference", predicted_ms(Subject(model, feeds), machine), real)


def training(name: str, batch: int, machine: str, processors: tuple[str, ...]) -> Line:
    """A step of stochastic gradient descent with momentum."""
    model = coexec.load(zoo.build(name, batch=batch, classes=CLASSES))
    feeds, labels = {"x": sample(name, batch)}, np.arange(batch) % CLASSES
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.01, momentum=0.9)
    real = {}
    for processor in processors:
        trainer = coexec.Trainer(model, loss, optimizer, [processor])
        real[processor] = median_ms(partial(trainer.step, feeds, labels))
    subject = Subject(model, feeds, recipe=Recipe(loss, optimizer), labels=labels)
    return Line(f"{name}, step of {batch}", predicted_ms(subject, machine), real)


def sample(name: str, batch: int) -> Array:
    """Random inputs."""
    shape = (batch, *zoo.CATALOG[name].input_shape)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def median_ms(run: Callable[[], object]) -> float:
    """Of runs for a second, five at least, after two to warm up."""
    times: list[float] = []
    for _ in range(2):
        run()
    began = time.perf_counter()
    while len(times) < RUNS or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def predicted_ms(subject: Subject, machine: str) -> float:
    """On the PC's CPU, as simulated."""
    (found,) = simulate(subject, Setup(machine, ("cpu",), SINGLE, runs=RUNS))
    return found.ms


def lines(machine: str, processors: tuple[str, ...]) -> Iterator[Line]:
    """All models, one after the other."""
    for name in INFERENCE:
        yield inference(name, machine, processors)
    opencl = tuple(name for name in processors if name.startswith("opencl:"))
    for name, batch in TRAINING:
        yield training(name, batch, machine, opencl)


def main() -> None:
    """Print a table, or with ``--json`` what stands in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("machine", help="file of coexec devices --measure --save")
    parser.add_argument("--processors", default=",".join(PROCESSORS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    processors = tuple(options.processors.split(","))
    table = Table("work", "simulated ms", *(f"{name} ms" for name in processors), "error")
    found = []
    for line in lines(options.machine, processors):
        found.append(asdict(line) | {"error": line.error})
        real = [f"{line.real_ms[p]:.2f}" if p in line.real_ms else "" for p in processors]
        table.add_row(line.work, f"{line.predicted_ms:.2f}", *real, f"{100 * line.error:+.0f} %")
    if options.json:
        Console().print_json(json.dumps(found))
    else:
        Console().print(table)


if __name__ == "__main__":
    main()
