"""The image encoder of "Segment anything" on ViT-Base, as a whole or in parts.

Source: Kirillov et al., "Segment anything", 2023: attention within windows of 14 x 14 patches but
for four blocks, with learned biases for rows and for columns that depend on the query (Li et al.,
"MViTv2", 2022). Parts hold blocks one behind the other, the first one the patches too and the last
one the convolutions behind the blocks.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.attention import Form, perceptron
from coexec.zoo.builder import Net, conv, require
from coexec.zoo.convnext import normed
from coexec.zoo.layers import NONE, Layers, Map
from coexec.zoo.swin import swapped
from coexec.zoo.transformer import Width, layer_norm, project

DEPTH, PATCH, FEATURES, HEADS, WINDOW, NECK = 12, 16, 768, 12, 14, 256
EACH = FEATURES // HEADS
WHOLE = frozenset({2, 5, 8, 11})
"""Blocks whose tokens look at all others."""


def sam_vit_encoder(
    batch: int | None = None,
    classes: int = NECK,
    *,
    first: int = 0,
    last: int = DEPTH,
    image_size: int = 1024,
    seed: int = 0,
) -> ir.Model:
    """Blocks from ``first`` to before ``last``; a size of an image is 16 times its patches'.

    (N, 3, size, size), or (N, patches, patches, 768) if the first block is another one, ->
    (N, classes, patches, patches), or as the input of a part.

    Raises:
        UsageError: no such blocks.
    """
    require(0 <= first < last <= DEPTH, f"no blocks {first} to {last} among {DEPTH}")
    side = image_size // PATCH
    shape = (batch, 3, image_size, image_size) if first == 0 else (batch, side, side, FEATURES)
    net = Net("sam_vit_encoder", shape, seed=seed)
    x = _patches(net, side) if first == 0 else net.x
    for block in range(first, last):
        x = _block(net, x, f"blocks.{block}", side, whole=block in WHOLE)
    if last < DEPTH:
        return net.finish(x, side, side, FEATURES)
    value = net.op("Transpose", "neck.first", [x], {"perm": (0, 3, 1, 2)})
    found = Map(value, FEATURES, side, side)
    layers = Layers.behind(net, found, NONE)
    for kernel in (1, 3):
        found = normed(layers, layers.conv(found, classes, kernel, norm=False, bias=False))
    return layers.finish(found)


def _patches(net: Net, side: int) -> ir.Value:
    x = conv(net, net.x, "patches", (3, FEATURES), (PATCH, PATCH), stride=PATCH)
    x = net.op("Transpose", "patches.last", [x], {"perm": (0, 2, 3, 1)})
    position = net.normal("position", (1, side, side, FEATURES), 0.02)
    return net.op("Add", "patches.position", [x, position])


def _block(net: Net, x: ir.Value, name: str, side: int, *, whole: bool) -> ir.Value:
    h = layer_norm(net, x, f"{name}.norm1", FEATURES)
    inner = _attention if whole else _in_windows
    h = inner(net, h, name, side)
    x = net.op("Add", f"{name}.add1", [x, h])
    h = layer_norm(net, x, f"{name}.norm2", FEATURES)
    h = perceptron(net, h, f"{name}.mlp", Form(Width(side**2, FEATURES, HEADS), 4 * FEATURES))
    return net.op("Add", f"{name}.add2", [x, h])


def _in_windows(net: Net, x: ir.Value, name: str, side: int) -> ir.Value:
    """Attention in windows of the image, which zeros fill up."""
    more = -side % WINDOW
    if more:
        pads = net.constant(f"{name}.pads", (0, 0, 0, 0, 0, more, more, 0), "int64")
        x = net.op("Pad", f"{name}.padded", [x, pads])
    count = (side + more) // WINDOW
    parts = (-1, count, WINDOW, count, WINDOW, FEATURES)
    x = swapped(net, x, f"{name}.windows", parts, (-1, WINDOW, WINDOW, FEATURES))
    x = _attention(net, x, name, WINDOW)
    parts = (-1, count, count, WINDOW, WINDOW, FEATURES)
    x = swapped(net, x, f"{name}.whole", parts, (-1, side + more, side + more, FEATURES))
    if more:
        bounds = [
            net.constant(f"{name}.{end}", numbers, "int64")
            for end, numbers in (("start", (0, 0)), ("end", (side, side)), ("axes", (1, 2)))
        ]
        x = net.op("Slice", f"{name}.cut", [x, *bounds])
    return x


def _attention(net: Net, x: ir.Value, name: str, side: int) -> ir.Value:
    """Of (windows, side, side, features) to the tokens of the same window."""
    count, heads = side**2, {}
    for part in "qkv":
        value = project(net, x, f"{name}.{part}", (FEATURES, FEATURES))
        shape = net.constant(f"{name}.{part}.shape", (-1, count, HEADS, EACH), "int64")
        value = net.op("Reshape", f"{name}.{part}.heads", [value, shape])
        order = (0, 2, 3, 1) if part == "k" else (0, 2, 1, 3)
        heads[part] = net.op("Transpose", f"{name}.{part}.transpose", [value], {"perm": order})
    scale = net.constant(f"{name}.scale.value", EACH**-0.5, "float32")
    scores = net.op("MatMul", f"{name}.scores", [heads["q"], heads["k"]])
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    scores = _placed(net, scores, heads["q"], name, side)
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, heads["v"]])
    mixed = net.op("Transpose", f"{name}.mix.transpose", [mixed], {"perm": (0, 2, 1, 3)})
    shape = net.constant(f"{name}.flat.shape", (-1, side, side, FEATURES), "int64")
    flat = net.op("Reshape", f"{name}.flat", [mixed, shape])
    return project(net, flat, f"{name}.out", (FEATURES, FEATURES))


def _placed(net: Net, scores: ir.Value, q: ir.Value, name: str, side: int) -> ir.Value:
    """Scores with what a query says of each row and of each column of the keys."""

    def shaped(value: ir.Value, what: str, *shape: int) -> ir.Value:
        sizes = net.constant(f"{name}.{what}.shape", shape, "int64")
        return net.op("Reshape", f"{name}.{what}", [value, sizes])

    def swap(value: ir.Value, what: str) -> ir.Value:
        return net.op("Transpose", f"{name}.{what}", [value], {"perm": (0, 2, 1, 3)})

    square = shaped(q, "square", -1, side, side, EACH)
    found = []
    for axis in ("row", "column"):
        # Picked from a few learned numbers by how far apart two tokens are, before any image.
        table = net.normal(f"{name}.{axis}.table", (side, EACH, side), 0.02)
        asked = square if axis == "row" else swap(square, "columns")
        said = net.op("MatMul", f"{name}.{axis}", [asked, table])
        found.append(said if axis == "row" else swap(said, "rows"))
    apart = shaped(scores, "apart", -1, side, side, side, side)
    for axis, said, shape in zip(("row", "column"), found, ((side, 1), (1, side)), strict=True):
        bias = shaped(said, f"{axis}.bias", -1, side, side, *shape)
        apart = net.op("Add", f"{name}.{axis}.add", [apart, bias])
    return shaped(apart, "together", -1, HEADS, side**2, side**2)
