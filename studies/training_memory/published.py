"""Two published ratios, planned for MobileNetV2: python -m studies.training_memory.published.

Memory at a fixed batch: what a step of batch 8 takes in each form, beside the plain step. Batch at
fixed memory: the largest batch tried whose step fits in what the plain step of batch 8 takes.
Images of 224 x 224, SGD with momentum; all that a step has on the device counts, parameters too.
Nothing is run: programs are placed and their memory is laid out. Writes published.md beside this
file.
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

HERE = Path(__file__).parent
NET, IMAGE, BATCH = "mobilenetv2", 224, 8
BATCHES = (8, 16, 24, 32, 35, 48, 64)
"""Tried in turns as long as they fit; 35 is 4.4 times the batch of 8."""

SPARSE = {"trainable": ("bias", "last:1")}
FORMS: dict[str, dict[str, Any]] = {
    "all parameters, activations in 4 bits, early updates": {
        "activations": "int4",
        "updates": "early",
    },
    "biases and the last layer": SPARSE,
    "biases and the last layer, activations in 4 bits": SPARSE | {"activations": "int4"},
    "the last layer": {"trainable": ("last:1",)},
    "the last layer, a sample at a time": {"trainable": ("last:1",), "micro_batches": BATCH},
}
"""Options of the trainer. A sample at a time, each is normalised by its own statistics."""


def main() -> None:
    """Plan all forms and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="opencl:intel")
    runtime = parser.parse_args().runtime
    plain = planned_bytes({}, BATCH, runtime)
    lines = [
        f"Plain step of batch {BATCH}: {plain / 2**20:.0f} MiB.\n",
        f"| form | step of batch {BATCH} | less by | batch in {plain / 2**20:.0f} MiB | more by |",
        "|---|---|---|---|---|",
    ]
    for name, options in FORMS.items():
        least, batch = planned_bytes(options, BATCH, runtime), largest(options, plain, runtime)
        lines.append(
            f"| {name} | {least / 2**20:.0f} MiB | {plain / least:.1f} "
            f"| {batch} | {batch / BATCH:.1f} |"
        )
        Console().print(lines[-1], markup=False)
    text = "\n".join(lines) + "\n"
    write_atomically(HERE / "published.md", lambda file: file.write(text.encode()))


def largest(options: dict[str, Any], nbytes: int, runtime: str) -> int:
    """The last of the batches tried whose step fits; 0: none."""
    found = 0
    for batch in BATCHES:
        if planned_bytes(options, batch, runtime) > nbytes:
            break
        found = batch
    return found


def planned_bytes(options: dict[str, Any], batch: int, runtime: str) -> int:
    """All memory that a step of a form has on the device."""
    parts = {"micro_batches": batch} if "micro_batches" in options else {}
    trainer = coexec.Trainer(
        coexec.load(zoo.build(NET, image_size=IMAGE)),
        losses.SoftmaxCrossEntropy(),
        optim.SGD(1e-3, momentum=0.9),
        [runtime],
        **(options | parts),
    )
    images = np.broadcast_to(np.float32(0), (batch, 3, IMAGE, IMAGE))
    return trainer.planned_bytes({"x": images})


if __name__ == "__main__":
    main()
