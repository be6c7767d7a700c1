"""The study's nets in PyTorch, for the CPU baseline (torch is optional)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

SIZES = {"M1": (16, 16), "M2": (16, 16, 16, 16), "M3": (256, 256), "M4": (784, 256, 128, 16)}


def build(name: str) -> nn.Module:
    """A net by name."""
    return _lenet() if name == "LeNet" else _fully_connected(SIZES[name])


def _fully_connected(sizes: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
