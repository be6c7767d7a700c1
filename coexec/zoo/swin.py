"""Swin transformers.

Source: Liu et al., "Swin transformer: Hierarchical vision transformer using shifted windows", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.attention import Form, mix, perceptron
from coexec.zoo.builder import Net, conv, linear, require
from coexec.zoo.transformer import Width, layer_norm, project

WINDOW, PATCH = 7, 4


@dataclass(frozen=True)
class Stage:
    """Tokens with the channels last: (N, side, side, features), in so many heads."""

    side: int
    features: int
    heads: int


def swin_tiny(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _swin("swin_tiny", 96, (2, 2, 6, 2), batch, classes, image_size, seed)


def swin_small(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _swin("swin_small", 96, (2, 2, 18, 2), batch, classes, image_size, seed)


def swin_base(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _swin("swin_base", 128, (2, 2, 18, 2), batch, classes, image_size, seed)


def _swin(
    name: str,
    features: int,
    depths: tuple[int, ...],
    batch: int | None,
    classes: int,
    image_size: int,
    seed: int,
) -> ir.Model:
    require(image_size % (PATCH * WINDOW * 8) == 0, f"{image_size} pixels are no whole windows")
    net = Net(name, (batch, 3, image_size, image_size), seed=seed)
    x = conv(net, net.x, "patches", (3, features), (PATCH, PATCH), stride=PATCH)
    x = net.op("Transpose", "patches.last", [x], {"perm": (0, 2, 3, 1)})
    x = layer_norm(net, x, "patches.norm", features)
    stage = Stage(image_size // PATCH, features, features // 32)
    for place, depth in enumerate(depths):
        if place:
            x, stage = _merged(net, x, f"merge{place}", stage)
        for block in range(depth):
            shift = WINDOW // 2 if block % 2 and stage.side > WINDOW else 0
            x = _block(net, x, f"stage{place}.{block}", stage, shift)
    x = layer_norm(net, x, "norm", stage.features)
    axes = net.constant("pool.axes", (1, 2), "int64")
    x = net.op("ReduceMean", "pool", [x, axes], {"keepdims": 0})
    return net.finish(linear(net, x, "head", (stage.features, classes)), classes)


def _block(net: Net, x: ir.Value, name: str, stage: Stage, shift: int) -> ir.Value:
    h = layer_norm(net, x, f"{name}.norm1", stage.features)
    if shift:
        h = _rolled(net, h, f"{name}.shift", stage.side, shift)
    windows, tokens = stage.side // WINDOW, WINDOW**2
    parts = (-1, windows, WINDOW, windows, WINDOW, stage.features)
    h = swapped(net, h, f"{name}.windows", parts, (-1, tokens, stage.features))
    width = Width(tokens, stage.features, stage.heads)
    # As large as the table of 13 x 13 distances that it is looked up in.
    table = net.normal(f"{name}.position", (stage.heads, (2 * WINDOW - 1) ** 2), 0.02)
    index = net.constant(f"{name}.distances", _distances(), "int64")
    bias = net.op("Gather", f"{name}.places", [table, index], {"axis": 1})
    q, k, v = (
        project(net, h, f"{name}.{part}", (stage.features, stage.features)) for part in "qkv"
    )
    h = mix(net, (q, k, v), tokens, name, width, bias)
    parts = (-1, windows, windows, WINDOW, WINDOW, stage.features)
    whole = (-1, stage.side, stage.side, stage.features)
    h = swapped(net, h, f"{name}.image", parts, whole)
    if shift:
        h = _rolled(net, h, f"{name}.back", stage.side, stage.side - shift)
    x = net.op("Add", f"{name}.add1", [x, h])
    h = layer_norm(net, x, f"{name}.norm2", stage.features)
    h = perceptron(net, h, f"{name}.mlp", Form(width, 4 * stage.features))
    return net.op("Add", f"{name}.add2", [x, h])


def _distances() -> list[list[int]]:
    """Where the bias of each pair of a window's positions stands in the table."""
    places = [(row, column) for row in range(WINDOW) for column in range(WINDOW)]
    span = 2 * WINDOW - 1
    return [
        [(a - c + WINDOW - 1) * span + b - d + WINDOW - 1 for c, d in places] for a, b in places
    ]


def _merged(net: Net, x: ir.Value, name: str, stage: Stage) -> tuple[ir.Value, Stage]:
    """Four neighbours side by side, and half as many features of them."""
    side, wide = stage.side // 2, 4 * stage.features
    parts = (-1, side, 2, side, 2, stage.features)
    x = swapped(net, x, f"{name}.neighbours", parts, (-1, side, side, wide))
    x = layer_norm(net, x, f"{name}.norm", wide)
    bound = 0.02
    weight = net.uniform(f"{name}.weight", (wide, wide // 2), bound)
    x = net.op("MatMul", name, [x, weight])
    return x, Stage(side, wide // 2, 2 * stage.heads)


def swapped(
    net: Net, x: ir.Value, name: str, parts: tuple[int, ...], whole: tuple[int, ...]
) -> ir.Value:
    """Axes 2 and 3 of ``parts`` exchanged."""
    x = net.op("Reshape", f"{name}.parts", [x, net.constant(f"{name}.in", parts, "int64")])
    x = net.op("Transpose", name, [x], {"perm": (0, 1, 3, 2, 4, 5)})
    return net.op("Reshape", f"{name}.whole", [x, net.constant(f"{name}.out", whole, "int64")])


def _rolled(net: Net, x: ir.Value, name: str, side: int, shift: int) -> ir.Value:
    """Rows and columns ``shift`` places on, those at the edge at the other one."""
    for axis in (1, 2):
        sizes = net.constant(f"{name}.{axis}.sizes", (shift, side - shift), "int64")
        ends = net.ops("Split", f"{name}.{axis}.split", [x, sizes], {"axis": axis}, outputs=2)
        x = net.op("Concat", f"{name}.{axis}", list(reversed(ends)), {"axis": axis})
    return x
