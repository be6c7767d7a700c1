"""Two published ratios, planned for MobileNetV2: python -m studies.training_memory.published.

Memory at a fixed batch: what a step of batch 8 takes in each form, beside the plain step. Batch at
fixed memory: the largest batch tried whose step fits in what the plain step of batch 8 takes.
Images of 224 x 224, SGD with momentum; all that a step has on the device counts, parameters too.
Programs are placed and their memory is laid out; with --run, each form also makes a step on a
device that refuses any byte above that. Writes published.md beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import coexec
from coexec import losses, optim, zoo
from coexec.base.disk import write_atomically
from coexec.passes.lora import ADAPTERS, add_adapters

HERE = Path(__file__).parent
NET, IMAGE, CLASSES, BATCH = "mobilenetv2", 224, 1000, 8
BATCHES = (8, 16, 24, 32, 35, 48, 64)
"""Tried in turns as long as they fit; 35 is 4.4 times the batch of 8."""

SPARSE = {"trainable": ("bias", "last:1")}
ADAPTED, RANK = "adapters of rank 8 on the last layer, a sample at a time", 8
FORMS: dict[str, dict[str, Any]] = {
    "all parameters, activations in 4 bits, early updates": {
        "activations": "int4",
        "updates": "early",
    },
    "biases and the last layer": SPARSE,
    "biases and the last layer, activations in 4 bits": SPARSE | {"activations": "int4"},
    "the last layer": {"trainable": ("last:1",)},
    "the last layer, a sample at a time": {"trainable": ("last:1",), "micro_batches": BATCH},
    ADAPTED: {"trainable": (ADAPTERS,), "micro_batches": BATCH},
}
"""Options of the trainer. A sample at a time, each is normalised by its own statistics."""


def main() -> None:
    """Plan all forms and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="opencl:intel")
    parser.add_argument("--run", action="store_true", help="make a step within what is planned")
    given = parser.parse_args()
    runtime = given.runtime
    plain = planned_bytes({}, BATCH, runtime)
    lines = [
        f"Plain step of batch {BATCH}: {plain / 2**20:.0f} MiB.\n",
        f"| form | step of batch {BATCH} | less by | batch in {plain / 2**20:.0f} MiB | more by |",
        "|---|---|---|---|---|",
    ]
    for name, options in FORMS.items():
        rank = RANK if name == ADAPTED else 0
        least = planned_bytes(options, BATCH, runtime, rank)
        if given.run:
            run_within(least, options, runtime, rank)
        batch = largest(options, plain, runtime, rank)
        lines.append(
            f"| {name} | {least / 2**20:.0f} MiB | {plain / least:.1f} "
            f"| {batch} | {batch / BATCH:.1f} |"
        )
        Console().print(lines[-1], markup=False)
    text = "\n".join(lines) + "\n"
    write_atomically(HERE / "published.md", lambda file: file.write(text.encode()))


def largest(options: dict[str, Any], nbytes: int, runtime: str, rank: int) -> int:
    """The last of the batches tried whose step fits; 0: none."""
    found = 0
    for batch in BATCHES:
        if planned_bytes(options, batch, runtime, rank) > nbytes:
            break
        found = batch
    return found


def run_within(nbytes: int, options: dict[str, Any], runtime: str, rank: int) -> None:
    """Make a step of a form on a device with so much memory.

    Raises:
        DeviceMemoryError: it takes more than was planned.
    """
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 3, IMAGE, IMAGE), np.float32)
    learner = trainer(options, BATCH, f"{runtime}?memory={nbytes}B", rank)
    loss = learner.step({"x": images}, rng.integers(0, CLASSES, BATCH))
    Console().print(f"  a step within {nbytes} bytes: loss {loss:.2f}")


def planned_bytes(options: dict[str, Any], batch: int, runtime: str, rank: int = 0) -> int:
    """All memory that a step of a form has on the device, with adapters of a rank if not 0."""
    images = np.broadcast_to(np.float32(0), (batch, 3, IMAGE, IMAGE))
    return trainer(options, batch, runtime, rank).planned_bytes({"x": images})


def trainer(options: dict[str, Any], batch: int, runtime: str, rank: int) -> coexec.Trainer:
    """One of a form; a sample at a time means as many parts as the batch has samples."""
    model = coexec.load(zoo.build(NET, image_size=IMAGE))
    if rank:
        add_adapters(model, rank)
    parts = {"micro_batches": batch} if "micro_batches" in options else {}
    how = losses.SoftmaxCrossEntropy(), optim.SGD(1e-3, momentum=0.9)
    return coexec.Trainer(model, *how, [runtime], **(options | parts))


if __name__ == "__main__":
    main()
