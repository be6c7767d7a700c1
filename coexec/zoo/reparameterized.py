"""MobileOne and RepVGG as they run: one convolution where the training had several side by side.

Sources: Vasu et al., "MobileOne: An improved one millisecond mobile backbone", 2023; Ding et al.,
"RepVGG: Making VGG-style ConvNets great again", 2021. Normalisation is folded into convolutions.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, Layers, Map

CHANNELS = (64, 128, 256, 512)
ONE_BLOCKS = (2, 8, 10, 1)
ONE_WIDTHS = (
    (0.75, 1.0, 1.0, 2.0),
    (1.5, 1.5, 2.0, 2.5),
    (1.5, 2.0, 2.5, 4.0),
    (2.0, 2.5, 3.0, 4.0),
    (3.0, 3.5, 3.5, 4.0),
)
"""MobileOne-S0 to S4: times of the stages' channels."""
EXCITED = {4: (0, 0, 5, 1)}
"""How many blocks at the end of each stage are excited, by the network's number."""
VGG_BLOCKS = ((2, 4, 14, 1), (4, 6, 16, 1))
"""RepVGG's blocks of each stage, the A and the B networks'."""
VGG_WIDTHS = (
    ((0.75, 0.75, 0.75, 2.5), (1.0, 1.0, 1.0, 2.5), (1.5, 1.5, 1.5, 2.75)),
    ((1.0, 1.0, 1.0, 2.5), (2.0, 2.0, 2.0, 4.0), (2.5, 2.5, 2.5, 5.0), (3.0, 3.0, 3.0, 5.0)),
)
"""Times of the stages' channels: A0 to A2, B0 to B3."""


def mobile_one(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    number: int = 0,
    seed: int = 0,
) -> ir.Model:
    """MobileOne-S``number``: (N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: no such network.
    """
    known = len(ONE_WIDTHS) - 1
    require(0 <= number <= known, f"MobileOnes are S0 to S{known}, not S{number}")
    layers = Layers("mobile_one", batch, (3, image_size, image_size), seed)
    widths, excited = ONE_WIDTHS[number], EXCITED.get(number, (0,) * len(CHANNELS))
    x = _first(layers, widths[0])
    for stage, blocks in enumerate(ONE_BLOCKS):
        for block in range(blocks):
            squeezed = block >= blocks - excited[stage]
            h = layers.depthwise(x, 3, stride=1 if block else 2, norm=False, act=NONE)
            h = layers.conv(
                _activated(layers, h, excited=squeezed),
                int(CHANNELS[stage] * widths[stage]),
                norm=False,
                act=NONE,
            )
            x = _activated(layers, h, excited=squeezed)
    return layers.logits(x, classes)


def rep_vgg(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    number: int = 0,
    deep: bool = False,
    seed: int = 0,
) -> ir.Model:
    """RepVGG-A``number``, or B (``deep``), of 3 x 3 convolutions alone.

    (N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: no such network.
    """
    sizes = VGG_WIDTHS[deep]
    require(0 <= number < len(sizes), f"this RepVGG has numbers below {len(sizes)}, not {number}")
    layers = Layers("rep_vgg", batch, (3, image_size, image_size), seed)
    widths = sizes[number]
    x = _first(layers, widths[0])
    for stage, blocks in enumerate(VGG_BLOCKS[deep]):
        out = int(CHANNELS[stage] * widths[stage])
        for block in range(blocks):
            x = layers.conv(x, out, 3, stride=1 if block else 2, norm=False)
    return layers.logits(x, classes)


def _first(layers: Layers, width: float) -> Map:
    out = min(CHANNELS[0], int(CHANNELS[0] * width))
    return layers.conv(layers.x, out, 3, stride=2, norm=False)


def _activated(layers: Layers, x: Map, *, excited: bool) -> Map:
    return layers.activate(layers.excite(x, x.channels // 16) if excited else x, RELU)
