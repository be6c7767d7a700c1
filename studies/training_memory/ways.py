"""Step time of each way to keep activations: python -m studies.training_memory.ways [--net NAME].

All ways of a network in turns in one process, in a new order each turn, some steps in a row each:
the first of them, whose tensors are not in the caches, does not count. Medians, beside the step
that keeps every activation in full. Kernels of one more step are counted with what they read and
write.
Writes ways.json and ways.md beside this file, in place of rows of the same network.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
from rich.console import Console

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.disk import write_atomically
from coexec.core.events import Trace
from coexec.passes.compress_activations import Activations
from coexec.zoo.catalog import CATALOG

HERE = Path(__file__).parent
WAYS: tuple[Activations, ...] = get_args(Activations)
WARM = 2
"""Turns that do not count."""
IN_A_ROW = 5
"""Steps of a way in a turn; as in a training, each but the first follows one of its own."""


@dataclass(frozen=True)
class Case:
    """Samples a step, steps that count, and the side of images that is not the net's own."""

    batch: int
    steps: int
    side: int = 0


CASES = {
    "lenet5": Case(32, 100),
    "digits_cnn": Case(32, 400),
    "sensor_cnn": Case(64, 150),
    "vgg11": Case(64, 9),
    "mobilenetv2": Case(8, 25, side=96),
    "resnet18": Case(32, 9),
}


def main() -> None:
    """Measure what the command line asks for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=CASES, action="append")
    parser.add_argument("--runtime", default="opencl:intel")
    given = parser.parse_args()
    file = HERE / "ways.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for net in given.net or CASES:
        rows = [row for row in rows if row["net"] != net] + measure(net, given.runtime)
        _write(file, json.dumps(rows, indent=1) + "\n")
    _write(HERE / "ways.md", table(rows))
    Console().print(table(rows), markup=False)


def measure(net: str, runtime: str) -> list[dict[str, Any]]:
    """Steps of a network in every way, in turns."""
    case, rng = CASES[net], np.random.default_rng(0)
    shape = (3, case.side, case.side) if case.side else CATALOG[net].input_shape
    feeds = {"x": rng.standard_normal((case.batch, *shape), np.float32)}
    labels = rng.integers(0, 4, case.batch)
    forms = {way: trainer(net, runtime, way) for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    choose = random.Random(0)  # noqa: S311
    for turn in range(-(-case.steps // (IN_A_ROW - 1)) + WARM):
        for way in choose.sample(WAYS, len(WAYS)):
            for number in range(IN_A_ROW):
                start = time.perf_counter()
                forms[way].step(feeds, labels)
                if turn >= WARM and number:
                    times[way].append((time.perf_counter() - start) * 1e3)
    traces = {way: Trace() for way in WAYS}
    for way in WAYS:
        forms[way].step(feeds, labels, traces[way])
    return [row(net, way, forms[way], times) | movement(traces, way) for way in WAYS]


def movement(traces: dict[Activations, Trace], way: Activations) -> dict[str, Any]:
    """Kernels launched, and bytes that they read and write beside those of the step in full."""
    moved, whole = (sum(each.bytes for each in traces[of].leaves()) for of in (way, "full"))
    kernels = sum(1 for each in traces[way].leaves() if each.bytes)
    return {"moved": moved / whole, "moved_bytes": moved, "kernels": kernels}


def row(
    net: str, way: Activations, form: coexec.Trainer, times: dict[str, list[float]]
) -> dict[str, Any]:
    """Median time of a step in ms, the same of the step in full, and bytes kept."""
    kept, full = form.kept_activations
    step, whole = median(times[way]), median(times["full"])
    batch = CASES[net].batch
    return {
        "net": net,
        "batch": batch,
        "way": way,
        "step_ms": step,
        "ratio": step / whole,
        "kept": kept / full,
    }


def trainer(net: str, runtime: str, way: Activations) -> coexec.Trainer:
    """A training by stochastic gradient descent with momentum."""
    how = SGD(1e-3, momentum=0.9)
    side = CASES[net].side
    model = coexec.load(zoo.build(net, **({"image_size": side} if side else {})))
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, [runtime], activations=way)


def table(rows: list[dict[str, Any]]) -> str:
    """Times and bytes beside the step in full."""
    lines = [
        "| network, batch | way | kept | moved | kernels | step | of full |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['net']}, {row['batch']} | `{row['way']}` | {row['kept']:.2f} "
        f"| {row['moved_bytes'] / 2**20:.1f} MiB ({row['moved']:.2f}) | {row['kernels']} "
        f"| {row['step_ms']:.2f} ms | {row['ratio']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
