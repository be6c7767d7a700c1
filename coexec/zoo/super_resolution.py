"""Larger images from small ones: QuickSRNet, XLSR, SESR, Real-ESRGAN's compact network, ESRGAN.

Sources: Berger et al., "QuickSRNet", 2023; Ayazoglu, "Extremely lightweight quantization robust
real-time single-image super resolution", 2021; Bhardwaj et al., "Collapsible linear blocks for
super-efficient super resolution", 2022; Wang et al., "Real-ESRGAN", 2021, and "ESRGAN",
2018.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import CLIP01, LEAKY, NONE, PRELU, Layers, Map

COMPACT_DEPTH, COMPACT_WIDTH = 32, 64
DENSE_BLOCKS, DENSE_WIDTH, GROWTH = 23, 64, 32
RESIDUAL_SCALE = 0.2


def quicksrnet_small(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    return _quicksrnet("quicksrnet_small", (32, 2), batch, classes, image_size, factor, seed)


def quicksrnet_medium(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    return _quicksrnet("quicksrnet_medium", (32, 5), batch, classes, image_size, factor, seed)


def quicksrnet_large(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    return _quicksrnet("quicksrnet_large", (64, 11), batch, classes, image_size, factor, seed)


def xlsr(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    layers = Layers("xlsr", batch, (3, image_size, image_size), seed)
    beside = _plain(layers, layers.x, 16, act=NONE)
    x = layers.conv(_plain(layers, layers.x, 32), 32, norm=False, act=NONE)
    for _ in range(3):
        x = layers.conv(x, 32, 3, groups=4, norm=False)
        x = layers.conv(x, 32, norm=False, act=NONE)
    x = layers.conv(layers.concat(x, beside), 32, norm=False)
    x = _plain(layers, x, classes * factor**2, act=NONE)
    return layers.finish(layers.activate(layers.pixel_shuffle(x, factor), CLIP01))


def sesr_m5(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    layers = Layers("sesr_m5", batch, (3, image_size, image_size), seed)
    first = layers.activate(_expanded(layers, layers.x, 16, 5), layers.act)
    x = first
    for _ in range(5):
        x = layers.activate(layers.add(x, _expanded(layers, x, 16, 3)), layers.act)
    x = _expanded(layers, layers.add(x, first), classes * factor**2, 5)
    x = layers.add(x, layers.conv(layers.x, x.channels, norm=False, act=NONE))
    return layers.finish(layers.pixel_shuffle(x, factor))


def real_esrgan_general(
    batch: int | None = None,
    classes: int = 3,
    *,
    image_size: int = 128,
    factor: int = 4,
    seed: int = 0,
) -> ir.Model:
    """The compact network: (N, 3, size, size) -> (N, classes, factor * size, factor * size)."""
    layers = Layers("real_esrgan_general", batch, (3, image_size, image_size), seed, PRELU)
    x = _plain(layers, layers.x, COMPACT_WIDTH)
    for _ in range(COMPACT_DEPTH):
        x = _plain(layers, x, COMPACT_WIDTH)
    x = layers.pixel_shuffle(_plain(layers, x, classes * factor**2, act=NONE), factor)
    return layers.finish(layers.add(x, layers.resize(layers.x, factor)))


def esrgan(
    batch: int | None = None, classes: int = 3, *, image_size: int = 128, seed: int = 0
) -> ir.Model:
    """Dense blocks within residual ones: (N, 3, size, size) -> (N, classes, 4 size, 4 size)."""
    layers = Layers("esrgan", batch, (3, image_size, image_size), seed, LEAKY)
    first = _plain(layers, layers.x, DENSE_WIDTH, act=NONE)
    x = first
    for _ in range(DENSE_BLOCKS):
        before = x
        for _ in range(3):
            x = _dense(layers, x)
        x = _added(layers, before, x)
    x = layers.add(_plain(layers, x, DENSE_WIDTH, act=NONE), first)
    for _ in range(2):
        x = _plain(layers, layers.resize(x, 2), DENSE_WIDTH)
    return layers.finish(_plain(layers, _plain(layers, x, DENSE_WIDTH), classes, act=NONE))


def _quicksrnet(
    name: str,
    shape: tuple[int, int],
    batch: int | None,
    classes: int,
    image_size: int,
    factor: int,
    seed: int,
) -> ir.Model:
    """``shape``: channels, and convolutions between the first and the last one."""
    channels, between = shape
    layers = Layers(name, batch, (3, image_size, image_size), seed, CLIP01)
    x = layers.x
    for _ in range(between + 1):
        x = _plain(layers, x, channels)
    x = _plain(layers, x, classes * factor**2, act=NONE)
    if channels > 32:
        # The large one adds the input to what it found.
        x = layers.add(x, layers.conv(layers.x, x.channels, norm=False, act=NONE))
    return layers.finish(layers.pixel_shuffle(layers.activate(x, CLIP01), factor))


def _expanded(layers: Layers, x: Map, out: int, kernel: int) -> Map:
    """SESR's linear block as it is trained: 256 channels between two convolutions."""
    wide = layers.conv(x, 256, kernel, norm=False, bias=False, act=NONE)
    return layers.conv(wide, out, norm=False, act=NONE)


def _plain(layers: Layers, x: Map, out: int, act: str | None = None) -> Map:
    return layers.conv(x, out, 3, norm=False, act=act)


def _dense(layers: Layers, x: Map) -> Map:
    """Four convolutions that see all before them, and one back to the width of ``x``."""
    found = [x]
    for _ in range(4):
        seen = found[0] if len(found) == 1 else layers.concat(*found)
        found.append(_plain(layers, seen, GROWTH))
    return _added(layers, x, _plain(layers, layers.concat(*found), DENSE_WIDTH, act=NONE))


def _added(layers: Layers, x: Map, h: Map) -> Map:
    name = layers.name("scale")
    factor = layers.net.constant(f"{name}.value", RESIDUAL_SCALE, "float32")
    value = layers.net.op("Mul", name, [h.value, factor])
    return layers.add(Map(value, h.channels, h.height, h.width), x)
