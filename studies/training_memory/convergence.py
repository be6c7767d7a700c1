"""Trained to convergence with compressed activations.

Run: python -m studies.training_memory.convergence. Real data: scikit-learn's digits on digits_cnn,
BasicMotions on sensor_cnn, two seeds each. Accuracy is that of the held-out part, kept and
planned bytes are those of a step. Writes convergence.json and
convergence.md beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, get_args

from rich.console import Console
from rich.progress import track

import coexec
from coexec import zoo
from coexec.base.disk import write_atomically
from coexec.passes.compress_activations import Activations
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, fit
from examples.prepare_basic_motions import basic_motions
from examples.prepare_digits import Split, digits

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Task:
    """A network of the zoo with its data and how long it is trained by Adam."""

    net: str
    data: Callable[[], tuple[Split, Split]]
    batch: int
    epochs: int


TASKS = (Task("digits_cnn", digits, 30, 15), Task("sensor_cnn", basic_motions, 8, 30))
RATE = 3e-3


def main() -> None:
    """Train every task in every way and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="opencl:intel")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    ways: tuple[Activations, ...] = get_args(Activations)
    jobs = [(task, way) for task in TASKS for way in ways]
    rows = [
        row_of(task, way, given.runtime, given.seeds)
        for task, way in track(jobs, console=Console(stderr=True))
    ]
    _write(HERE / "convergence.json", json.dumps(rows, indent=1) + "\n")
    _write(HERE / "convergence.md", table(rows))
    Console().print(table(rows), markup=False)


def row_of(task: Task, way: Activations, runtime: str, seeds: int) -> dict[str, Any]:
    """Trainings of one network in one way, over all seeds."""
    runs = [train(task, way, runtime, seed) for seed in range(seeds)]
    return {
        "net": task.net,
        "batch": task.batch,
        "activations": way,
        "seeds": seeds,
        "accuracy": mean(run["accuracy"] for run in runs),
        **{key: runs[0][key] for key in ("kept_bytes", "full_bytes", "planned")},
    }


def train(task: Task, way: Activations, runtime: str, seed: int) -> dict[str, Any]:
    """One training; data and weights are the same for all, order and dropout are the seed's."""
    (x, labels), (held_x, held_labels) = task.data()
    trainer = coexec.Trainer(
        coexec.load(zoo.build(task.net, batch=None)),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.Adam(RATE),
        [runtime],
        seed=seed,
        activations=way,
    )
    how = FitOptions(task.epochs, task.batch, seed)
    result = fit(trainer, Dataset({"x": x}, labels), None, how)
    kept, full = trainer.kept_activations
    right = sum(
        int((trainer.predict({"x": part})["y"].argmax(1) == truth).sum())
        for part, truth in zip(
            batches(held_x, task.batch), batches(held_labels, task.batch), strict=True
        )
    )
    return {
        "accuracy": right / len(held_labels),
        "loss_last": result.loss_last,
        "kept_bytes": kept,
        "full_bytes": full,
        "planned": trainer.peak_bytes,
    }


def batches(array: Any, size: int) -> list[Any]:
    """Parts of ``size`` samples, and what is left."""
    return [array[start : start + size] for start in range(0, len(array), size)]


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracy and memory of each way beside those in full."""
    lines = [
        "| network | way | held out | kept | of full | planned |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['net']} | `{row['activations']}` | {row['accuracy']:.2%} "
        f"| {row['kept_bytes'] / 1024:.0f} KiB | {row['kept_bytes'] / row['full_bytes']:.2f} "
        f"| {row['planned'] / 1024:.0f} KiB |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
