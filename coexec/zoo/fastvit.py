"""FastViT-T8 to SA36 as they run: one depthwise convolution where the training had several.

Source: Vasu et al., "FastViT: A fast hybrid vision transformer using structural
reparameterization", 2023, as in timm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.attention import attend_unbiased, image, rows
from coexec.zoo.builder import require
from coexec.zoo.layers import GELU, NONE, Layers, Map
from coexec.zoo.transformer import Width

HEAD = 32
"""Features of a head."""
LAST = 3
"""The stage that may have attention."""


@dataclass(frozen=True)
class Size:
    """Channels of the first stage, blocks, expansion, and whether the last stage attends."""

    width: int
    depths: tuple[int, int, int, int]
    expansion: int
    attends: bool = False


SIZES = (
    Size(48, (2, 2, 4, 2), 3),
    Size(64, (2, 2, 6, 2), 3),
    Size(64, (2, 2, 6, 2), 4),
    Size(64, (2, 2, 6, 2), 4, attends=True),
    Size(64, (4, 4, 12, 4), 4, attends=True),
    Size(64, (6, 6, 18, 6), 4, attends=True),
)
"""T8, T12, S12, SA12, SA24 and SA36."""


def fastvit(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 256,
    number: int = 0,
    seed: int = 0,
) -> ir.Model:
    """T8, T12, S12, SA12, SA24 or SA36 by ``number``: (N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: no such network.
    """
    require(0 <= number < len(SIZES), f"FastViT has {len(SIZES)} sizes, not {number}")
    size = SIZES[number]
    layers = Layers("fastvit", batch, (3, image_size, image_size), seed, GELU)
    x = layers.conv(layers.x, size.width, 3, stride=2, norm=False)
    x = layers.conv(layers.depthwise(x, 3, stride=2, norm=False), size.width, norm=False)
    for stage, depth in enumerate(size.depths):
        attends = size.attends and stage == LAST
        if stage:
            out = 2 * x.channels
            x = layers.conv(x, out, 7, stride=2, groups=x.channels, norm=False, act=NONE)
            x = layers.conv(x, out, norm=False)
        if attends:
            x = layers.depthwise(x, 7, norm=False, act=NONE)
        for _ in range(depth):
            x = _attended(layers, x) if attends else layers.depthwise(x, 3, norm=False, act=NONE)
            x = layers.add(x, _scaled(layers, _perceptron(layers, x, size.expansion)))
    x = layers.conv(x, 2 * x.channels, 3, groups=x.channels, norm=False, act=NONE)
    x = layers.activate(layers.excite(x, x.channels // 16), GELU)
    return layers.logits(x, classes)


def _perceptron(layers: Layers, x: Map, expansion: int) -> Map:
    h = layers.conv(layers.depthwise(x, 7, act=NONE), expansion * x.channels, norm=False)
    return layers.conv(h, x.channels, norm=False, act=NONE)


def _attended(layers: Layers, x: Map) -> Map:
    """Attention between all pixels, added to them."""
    width = Width(x.height * x.width, x.channels, x.channels // HEAD)
    value = rows(layers, layers.norm(x))
    memory = (value, width.tokens, width.features)
    value = attend_unbiased(layers.net, value, memory, layers.name("attention"), width)
    return layers.add(x, _scaled(layers, image(layers, value, x.channels, x.height, x.width)))


def _scaled(layers: Layers, x: Map) -> Map:
    name = layers.name("scale")
    factor = layers.net.filled(f"{name}.gamma", (x.channels, 1, 1), 0.1)
    return replace(x, value=layers.net.op("Mul", name, [x.value, factor]))
