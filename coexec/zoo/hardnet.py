"""HarDNet: dense blocks whose layers read the results of layers 1, 2, 4, 8 ... before them.

Source: Chao et al., "HarDNet: A low memory traffic network", 2019. Sizes as in the pytorchcv
collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU6, Layers, Map


@dataclass(frozen=True)
class Block:
    """So many layers that grow by so many channels, and how many leave; ``halved`` behind them."""

    layers: int
    growth: int
    out: int
    halved: bool = False


@dataclass(frozen=True)
class Form:
    """``factor``: how many times more channels has a layer for each link but the first."""

    stem: int
    factor: float
    blocks: tuple[Block, ...]


FORMS = {
    39: Form(
        48,
        1.6,
        (
            Block(4, 16, 96, halved=True),
            Block(16, 20, 320, halved=True),
            Block(8, 64, 640, halved=True),
            Block(4, 160, 1024),
        ),
    ),
    68: Form(
        64,
        1.7,
        (
            Block(8, 14, 128, halved=True),
            Block(16, 16, 256),
            Block(16, 20, 320, halved=True),
            Block(16, 40, 640, halved=True),
            Block(4, 160, 1024),
        ),
    ),
    85: Form(
        96,
        1.7,
        (
            Block(8, 24, 192, halved=True),
            Block(16, 24, 256),
            Block(16, 28, 320, halved=True),
            Block(16, 36, 480),
            Block(16, 48, 720, halved=True),
            Block(4, 256, 1280),
        ),
    ),
}
"""By depth."""


def hardnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    depth: int = 68,
    separable: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``separable``: 1 x 1 and depthwise convolutions in place of 3 x 3 ones and of pools.

    Raises:
        UsageError: a depth that no network of the family has.
    """
    require(depth in FORMS, f"HarDNet is {', '.join(map(str, FORMS))} deep, not {depth}")
    form = FORMS[depth]
    layers = Layers("hardnet", batch, (3, image_size, image_size), seed, act=RELU6)
    x = layers.conv(layers.x, form.stem // 2, 3, stride=2)
    x = layers.conv(x, form.stem, 1 if separable else 3)
    x = _halved(layers, x, 3, separable=separable)
    for block in form.blocks:
        x = layers.conv(_dense(layers, x, block, form.factor, separable=separable), block.out)
        if block.halved:
            x = _halved(layers, x, 2, separable=separable)
    return layers.logits(x, classes)


def _halved(layers: Layers, x: Map, window: int, *, separable: bool) -> Map:
    """Half of the height and width; ``window`` is that of the pool."""
    if separable:
        return layers.depthwise(x, 3, stride=2, act=NONE)
    return layers.max_pool(x, window, 2, (window - 1) // 2)


def _dense(layers: Layers, x: Map, block: Block, factor: float, *, separable: bool) -> Map:
    """What every second layer and the last one result in, joined."""
    results = [x]
    for place in range(1, block.layers + 1):
        read = [results[link] for link in _links(place)]
        joined = layers.concat(*read) if len(read) > 1 else read[0]
        out = _channels(block.growth, factor, len(read))
        if separable:
            results.append(layers.depthwise(layers.conv(joined, out), 3, act=NONE))
        else:
            results.append(layers.conv(joined, out, 3))
    kept = [each for n, each in enumerate(results) if n % 2 or n == block.layers]
    return layers.concat(*kept)


def _links(place: int) -> list[int]:
    """Layers that a layer reads: 1, 2, 4 ... before it, by powers that divide its place."""
    return [place - (1 << power) for power in range(place.bit_length()) if not place % (1 << power)]


def _channels(growth: int, factor: float, links: int) -> int:
    """An even number of them."""
    channels = float(growth)
    for _ in range(links - 1):
        channels *= factor
    return int(channels + 1) // 2 * 2
