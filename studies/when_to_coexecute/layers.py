"""Single operators of growing size: 3 x 3 convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import Net, conv, linear


@dataclass(frozen=True)
class Layer:
    """A convolution of ``channels`` to as many on a square image, or (``side`` 0) a linear layer.

    ``rows`` is the batch.
    """

    name: str
    family: str
    rows: int
    channels: int
    side: int = 0

    @property
    def flop(self) -> int:
        """A multiply-add counts as 2."""
        positions, kernel = (self.side**2, 9) if self.side else (1, 1)
        return 2 * self.rows * positions * kernel * self.channels**2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input."""
        return (self.rows, self.channels, *((self.side, self.side) if self.side else ()))

    def model(self) -> ir.Model:
        """The operator with its bias; weights are constants."""
        net = Net("layer", self.shape, seed=0)
        channels = (self.channels, self.channels)
        if self.side:
            y = conv(net, net.x, "layer", channels, (3, 3), pad=1)
            return net.finish(y, self.channels, self.side, self.side)
        return net.finish(linear(net, net.x, "layer", channels), self.channels)


CONVOLUTION, LINEAR = "convolution", "linear"
SIZES = ((16, 14), (32, 14), (32, 28), (64, 28), (64, 56), (128, 56), (128, 112))
"""Channels and side: from 1 MFLOP to 3.7 GFLOP, four times as many each."""
ROWS = (1, 4, 16, 64, 256, 1024)
FEATURES = 1024
LAYERS: Mapping[str, Layer] = {
    layer.name: layer
    for layer in (
        *(Layer(f"conv {c}, {n}x{n}", CONVOLUTION, 1, c, n) for c, n in SIZES),
        *(Layer(f"linear {FEATURES}, {rows} rows", LINEAR, rows, FEATURES) for rows in ROWS),
    )
}
