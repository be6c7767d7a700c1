"""What compressing a trained network costs in accuracy, before and after training it further.

An example: python examples/compress_digits.py out/train.npz out/validation.npz

`make demo` writes these files (or examples/prepare_digits.py).

Trains the zoo's digits_cnn as that does, once for each seed. Each line of the table (Markdown) is
the mean of the seeds: weights and work of what a technique leaves, accuracy on held-out digits
right after it, after training it further, and of the 8-bit form of that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import onnx_ir as ir
from rich.console import Console

import coexec
from coexec.api import open_all
from coexec.compression.effect import accuracy, predict, size_of
from coexec.compression.techniques import Settings, compress
from coexec.training.data import Dataset, load_npz
from coexec.training.fit import FitOptions, fit
from coexec.zoo.lenet import digits_cnn

BATCH, EPOCHS, RATE = 32, 15, 1e-3
MULTIPLE = 4
CHOICES: tuple[tuple[str, ...], ...] = (
    (),
    ("svd:0.8",),
    ("svd:0.5",),
    ("prune:0.3",),
    ("prune:0.5",),
    ("prune:0.75",),
    ("prune:0.5", "svd:0.8"),
)
SHAPES = {"x": (1, 1, 8, 8)}
HEADINGS = (
    "technique",
    "weights",
    "MFLOP",
    "accuracy",
    "trained further",
    "weights in 8 bits",
    "accuracy in 8 bits",
)

Row = dict[str, float]


def train(
    model: ir.Model, data: Dataset, processors: Sequence[str], epochs: int, seed: int
) -> ir.Model:
    """The model after some epochs of Adam."""
    trainer = coexec.Trainer(
        model,
        loss=coexec.losses.SoftmaxCrossEntropy(),
        optimizer=coexec.optim.Adam(RATE),
        processors=processors,
        seed=seed,
    )
    fit(trainer, data, None, FitOptions(epochs=epochs, batch_size=BATCH, seed=seed))
    return coexec.load(trainer.trained_model())


def measure(
    trained: ir.Model,
    techniques: Sequence[str],
    data: tuple[Dataset, Dataset],
    processors: Sequence[str],
    seed: int,
    epochs: int,
) -> Row:
    """A line of the table for one seed: accuracies as shares, bytes, FLOP of a sample."""
    training, held_out = data

    def right(model: ir.Model) -> float:
        found = predict(model, held_out.inputs, open_all(processors))
        return accuracy(found, held_out.truth)

    smaller, _ = compress(trained, techniques, Settings(MULTIPLE))
    tuned = train(smaller, training, processors, epochs, seed)
    integers, _ = compress(tuned, ["int8"], Settings(calibration=training.inputs))
    size = size_of(smaller, SHAPES)
    return {
        "weight_bytes": size.weight_bytes,
        "flop": size.flop,
        "accuracy": right(smaller),
        "accuracy_tuned": right(tuned),
        "int8_weight_bytes": size_of(integers, SHAPES).weight_bytes,
        "int8_accuracy": right(integers),
    }


def text(techniques: Sequence[str], row: Row) -> str:
    """A line in Markdown."""
    cells = (
        ", ".join(f"`{technique}`" for technique in techniques) or "none",
        f"{row['weight_bytes'] / 1024:.0f} KiB",
        f"{row['flop'] / 1e6:.2f}",
        f"{row['accuracy']:.1%}",
        f"{row['accuracy_tuned']:.1%}",
        f"{row['int8_weight_bytes'] / 1024:.0f} KiB",
        f"{row['int8_accuracy']:.1%}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table, or all figures as one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="npz file with x and labels")
    parser.add_argument("validation", type=Path, help="the same, held out")
    parser.add_argument("--epochs", type=int, default=1, help="of training after a technique")
    parser.add_argument("--processor", action="append", help="coexec's processors")
    parser.add_argument("--seeds", type=int, default=3, help="trainings to take the mean of")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    processors = arguments.processor or ["opencl"]
    data = load_npz(arguments.train), load_npz(arguments.validation)
    found: dict[tuple[str, ...], list[Row]] = {choice: [] for choice in CHOICES}
    status = Console(stderr=True)
    for seed in range(arguments.seeds):
        with status.status(f"training with seed {seed}"):
            model = coexec.load(digits_cnn(seed=seed))
            trained = train(model, data[0], processors, EPOCHS, seed)
        for choice in CHOICES:
            with status.status(f"seed {seed}: {', '.join(choice) or 'no technique'}"):
                row = measure(trained, choice, data, processors, seed, arguments.epochs)
                found[choice].append(row)
    rows = {
        choice: {key: mean(row[key] for row in each) for key in each[0]}
        for choice, each in found.items()
    }
    if arguments.json:
        named = [{"techniques": choice, **row} for choice, row in rows.items()]
        sys.stdout.write(json.dumps({"seeds": arguments.seeds, "rows": named}) + "\n")
        return 0
    print(f"| {' | '.join(HEADINGS)} |")
    print(f"|{'|'.join(itertools.repeat('---', len(HEADINGS)))}|")
    for choice, row in rows.items():
        print(text(choice, row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
