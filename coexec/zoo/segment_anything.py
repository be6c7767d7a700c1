"""Encoders of images for "segment anything": MobileSAM's and the tiny one of SAM 2.

Sources: Zhang et al., "Faster segment anything: Towards lightweight SAM for mobile applications",
2023, on TinyViT-5M (Wu et al., "TinyViT", 2022); Ravi et al., "SAM 2: Segment anything in images
and videos", 2024, on Hiera-T (Ryali et al., "Hiera", 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.attention import Form, image, mix, perceptron, rows
from coexec.zoo.builder import Net, max_pool
from coexec.zoo.convnext import normed
from coexec.zoo.layers import GELU, NONE, Layers, Map
from coexec.zoo.swin import swapped
from coexec.zoo.transformer import Width, layer_norm, project


@dataclass(frozen=True)
class Stage:
    """Features, heads, blocks, side of a window, and stride of the convolutions in front."""

    features: int
    heads: int
    depth: int
    window: int
    stride: int


STAGES = (Stage(128, 4, 2, 7, 2), Stage(160, 5, 6, 14, 2), Stage(320, 10, 2, 7, 1))
FIRST, NECK = 64, 256
"""Channels of the stage of convolutions, and those of the result."""
HIERA = (
    (96, 8, False),
    (192, 8, True),
    (192, 4, False),
    (384, 4, True),
    (384, 14, False),
    (384, 0, False),
    (384, 14, False),
    (384, 0, False),
    (384, 14, False),
    (384, 0, False),
    (768, 14, True),
    (768, 7, False),
)
"""Features of each block, side of its windows (0: all of the image), whether it halves the size."""
FINE = (32, 64)
"""Channels of the two finer maps of SAM 2."""


@dataclass(frozen=True)
class Grid:
    """Pixels with the channels last: (N, side, side, features)."""

    value: ir.Value
    side: int
    features: int


def mobile_sam_encoder(
    batch: int | None = None, classes: int = NECK, *, image_size: int = 1024, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size / 16, size / 16)."""
    layers = Layers("mobile_sam_encoder", batch, (3, image_size, image_size), seed, GELU)
    x = layers.conv(layers.conv(layers.x, FIRST // 2, 3, stride=2), FIRST, 3, stride=2, act=NONE)
    for _ in range(2):
        h = layers.depthwise(layers.conv(x, 4 * FIRST), 3)
        x = layers.activate(layers.add(layers.conv(h, FIRST, act=NONE), x), GELU)
    for number, stage in enumerate(STAGES):
        x = layers.depthwise(layers.conv(x, stage.features), 3, stride=stage.stride)
        x = layers.conv(x, stage.features, act=NONE)
        for block in range(stage.depth):
            x = _windowed_block(layers, x, f"stage.{number}.{block}", stage)
    x = normed(layers, layers.conv(x, classes, norm=False, bias=False, act=NONE))
    x = normed(layers, layers.conv(x, classes, 3, norm=False, bias=False, act=NONE))
    return layers.finish(x)


def _windowed_block(layers: Layers, x: Map, name: str, stage: Stage) -> Map:
    """Attention in windows, a depthwise convolution, a perceptron."""
    net, features, width = layers.net, stage.features, stage.window
    value = net.op("Transpose", f"{name}.last", [x.value], {"perm": (0, 2, 3, 1)})
    high, wide = -x.height % width, -x.width % width
    h = value
    if high or wide:
        pads = net.constant(f"{name}.pads", (0, 0, 0, 0, 0, high, wide, 0), "int64")
        h = net.op("Pad", f"{name}.padded", [value, pads])
    rows_of, columns = (x.height + high) // width, (x.width + wide) // width
    parts = (-1, rows_of, width, columns, width, features)
    h = swapped(net, h, f"{name}.windows", parts, (-1, width**2, features))
    h = layer_norm(net, h, f"{name}.norm1", features)
    form = Width(width**2, features, stage.heads)
    q, k, v = (project(net, h, f"{name}.{part}", (features, features)) for part in "qkv")
    # Picked from a few learned numbers by how far apart two pixels are, before any image.
    place = net.normal(f"{name}.place", (1, stage.heads, width**2, width**2), 0.02)
    h = mix(net, (q, k, v), width**2, name, form, place)
    parts = (-1, rows_of, columns, width, width, features)
    h = swapped(net, h, f"{name}.whole", parts, (-1, x.height + high, x.width + wide, features))
    if high or wide:
        bounds = [
            net.constant(f"{name}.{end}", numbers, "int64")
            for end, numbers in (("start", (0, 0)), ("end", (x.height, x.width)), ("axes", (1, 2)))
        ]
        h = net.op("Slice", f"{name}.cut", [h, *bounds])
    h = net.op("Add", f"{name}.add1", [value, h])
    h = net.op("Transpose", f"{name}.first", [h], {"perm": (0, 3, 1, 2)})
    x = layers.depthwise(replace(x, value=h), 3, act=NONE)
    value = rows(layers, x)
    h = layer_norm(net, value, f"{name}.norm2", features)
    h = perceptron(net, h, f"{name}.mlp", Form(form, 4 * features))
    h = net.op("Add", f"{name}.add2", [value, h])
    return image(layers, h, features, x.height, x.width)


def sam2_encoder(
    batch: int | None = None, classes: int = NECK, *, image_size: int = 1024, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> features of a 16th, a 4th and an 8th of the size, side by side."""
    layers = Layers("sam2_encoder", batch, (3, image_size, image_size), seed, NONE)
    net, first = layers.net, HIERA[0][0]
    x = layers.conv(layers.x, first, 7, stride=4, norm=False)
    value = net.op("Transpose", "patches", [x.value], {"perm": (0, 2, 3, 1)})
    # Interpolated from a few learned numbers before any image.
    place = net.normal("position", (1, x.height, x.width, first), 0.02)
    grid = Grid(net.op("Add", "placed", [value, place]), x.height, first)
    found = []
    for number, (features, window, halved) in enumerate(HIERA):
        if halved:
            found.append(_first(net, grid, f"stage.{number}"))
        grid = _hiera_block(net, grid, f"blocks.{number}", features, window, halved=halved)
    found.append(_first(net, grid, "stage.last"))
    maps = [layers.conv(each, classes, norm=False) for each in found]
    coarse = layers.add(maps[2], layers.resize(maps[3], 2))
    none = net.normal("no_memory", (1, classes, 1, 1), 0.02)
    named = replace(coarse, value=net.op("Add", "no_memory.add", [coarse.value, none]))
    fine = [layers.conv(each, out, norm=False) for each, out in zip(maps, FINE, strict=False)]
    rows_of, count = [], 0
    for number, each in enumerate((named, *fine)):
        size = each.channels * each.height * each.width
        shape = net.constant(f"flat.{number}.shape", (-1, size), "int64")
        rows_of.append(net.op("Reshape", f"flat.{number}", [each.value, shape]))
        count += size
    return net.finish(net.op("Concat", "features", rows_of, {"axis": 1}), count)


def _hiera_block(net: Net, grid: Grid, name: str, out: int, window: int, *, halved: bool) -> Grid:
    """Attention in windows, whose queries may be the largest of 2 x 2, and a perceptron."""
    side, features = grid.side, grid.features
    half = 2 if halved else 1
    h = layer_norm(net, grid.value, f"{name}.norm1", features)
    kept = grid.value
    if features != out:
        kept = project(net, h, f"{name}.shortcut", (features, out))
    if halved:
        kept = _largest(net, kept, f"{name}.shortcut.pool")
    window = window or side
    more = -side % window
    if more:
        pads = net.constant(f"{name}.pads", (0, 0, 0, 0, 0, more, more, 0), "int64")
        h = net.op("Pad", f"{name}.padded", [h, pads])
    count = (side + more) // window
    if count > 1:
        parts = (-1, count, window, count, window, features)
        h = swapped(net, h, f"{name}.windows", parts, (-1, window, window, features))
    q, k, v = (project(net, h, f"{name}.{part}", (features, out)) for part in "qkv")
    q = _largest(net, q, f"{name}.q.pool") if halved else q
    small = window // half
    h = mix(net, (q, k, v), window**2, name, Width(small**2, out, out // 96))
    whole = (-1, (side + more) // half, (side + more) // half, out)
    if count > 1:
        h = swapped(net, h, f"{name}.whole", (-1, count, count, small, small, out), whole)
    else:
        h = net.op(
            "Reshape", f"{name}.whole", [h, net.constant(f"{name}.out.shape", whole, "int64")]
        )
    side //= half
    if more:
        bounds = [
            net.constant(f"{name}.{end}", numbers, "int64")
            for end, numbers in (("start", (0, 0)), ("end", (side, side)), ("axes", (1, 2)))
        ]
        h = net.op("Slice", f"{name}.cut", [h, *bounds])
    x = net.op("Add", f"{name}.add1", [kept, h])
    h = layer_norm(net, x, f"{name}.norm2", out)
    h = perceptron(net, h, f"{name}.mlp", Form(Width(side**2, out, 1), 4 * out))
    return Grid(net.op("Add", f"{name}.add2", [x, h]), side, out)


def _largest(net: Net, x: ir.Value, name: str) -> ir.Value:
    """The largest of 2 x 2 pixels, channels last before and after."""
    x = net.op("Transpose", f"{name}.first", [x], {"perm": (0, 3, 1, 2)})
    x = max_pool(net, x, name, (2, 2), stride=2)
    return net.op("Transpose", f"{name}.last", [x], {"perm": (0, 2, 3, 1)})


def _first(net: Net, grid: Grid, name: str) -> Map:
    """With the channels first."""
    value = net.op("Transpose", name, [grid.value], {"perm": (0, 3, 1, 2)})
    return Map(value, grid.features, grid.side, grid.side)
