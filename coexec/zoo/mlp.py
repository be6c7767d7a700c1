"""Multilayer perceptron: fully connected layers with a non-linearity between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import onnx_ir as ir

from coexec.zoo.builder import Net, linear, require

ACTIVATIONS = ("Relu", "Tanh", "Sigmoid")


def mlp(
    batch: int | None = None,
    classes: int = 10,
    *,
    sizes: Sequence[int] = (784, 256, 128),
    activation: str = "Relu",
    seed: int = 0,
) -> ir.Model:
    """(N, sizes[0]) -> (N, classes) through hidden layers of ``sizes[1:]`` features.

    Raises:
        UsageError: no size, a size below 1, or an activation other than Relu, Tanh, Sigmoid.
    """
    require(len(sizes) > 0 and min(sizes) > 0, f"sizes must be positive, not {tuple(sizes)}")
    require(
        activation in ACTIVATIONS,
        f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation}",
    )
    net = Net("mlp", (batch, sizes[0]), seed=seed)
    h = net.x
    for i, features in enumerate(pairwise(sizes), start=1):
        h = linear(net, h, f"fc{i}", features, rectified=activation == "Relu")
        h = net.op(activation, f"{activation.lower()}{i}", [h])
    return net.finish(linear(net, h, f"fc{len(sizes)}", (sizes[-1], classes)), classes)
