"""What ``coexec profile`` adds to a step: coexec alone, traced and untraced steps in turns."""

from __future__ import annotations

from bench.case import Case, Suite


def _case(title: str, model: str, batch: int, train: bool, quick: bool = False) -> Case:
    kind = "training step" if train else "inference"
    spec = {"model": model, "batch": batch, "train": train}
    return Case(f"{title}, {kind}, batch {batch}", "profiling", spec, quick=quick)


SUITE = Suite(
    "profiling",
    "Cost of profiling",
    (
        _case("LeNet 28x28", "lenet5", 32, train=True, quick=True),
        _case("ResNet-18 32x32", "resnet18", 32, train=True),
        _case("LeNet 28x28", "lenet5", 1, train=False),
        _case("ResNet-18 32x32", "resnet18", 1, train=False),
    ),
    minutes=0.7,
    seconds=1.0,
)
