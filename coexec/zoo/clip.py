"""CLIP, ViT-Base on patches of 16: how well a text describes an image.

Source: Radford et al., "Learning transferable visual models from natural language supervision",
2021. An input holds an image and, behind it, the features of the words of one text.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.attention import Form, encode, pick
from coexec.zoo.builder import Net, conv
from coexec.zoo.transformer import Width, layer_norm

PATCH, DEPTH, WORDS, WRITTEN = 16, 12, 77, 512
"""Side of a patch, blocks of both halves, words of a text and their features."""
SEEN, SHARED = 768, 512
"""Features of a patch, and those in which image and text are compared."""


def clip_vit_b16(
    batch: int | None = None,
    classes: int = 1,
    *,
    image_size: int = 224,
    depth: int = DEPTH,
    seed: int = 0,
) -> ir.Model:
    """(N, 3 * size * size + 77 * 512) -> how alike both are (N, classes)."""
    pixels = 3 * image_size**2
    net = Net("clip_vit_b16", (batch, pixels + WORDS * WRITTEN), seed=seed)
    sizes = net.constant("inputs.sizes", (pixels, WORDS * WRITTEN), "int64")
    image, words = net.ops("Split", "inputs", [net.x, sizes], {"axis": 1}, outputs=2)
    shape = net.constant("image.shape", (-1, 3, image_size, image_size), "int64")
    seen = _seen(net, net.op("Reshape", "image", [image, shape]), image_size, depth)
    shape = net.constant("words.shape", (-1, WORDS, WRITTEN), "int64")
    written = _written(net, net.op("Reshape", "words", [words, shape]), depth)
    product = net.op("Mul", "alike.product", [_unit(net, seen, "seen"), written])
    axes = net.constant("alike.axes", (1,), "int64")
    total = net.op("ReduceSum", "alike.sum", [product, axes], {"keepdims": 1})
    scale = net.filled("alike.scale", (classes,), 100.0)
    return net.finish(net.op("Mul", "alike", [total, scale]), classes)


def _seen(net: Net, image: ir.Value, size: int, depth: int) -> ir.Value:
    """(N, 3, size, size) -> (N, shared features)."""
    x = conv(net, image, "patches", (3, SEEN), (PATCH, PATCH), stride=PATCH, bias=False)
    count = (size // PATCH) ** 2
    shape = net.constant("tokens.shape", (-1, SEEN, count), "int64")
    x = net.op("Reshape", "tokens.flat", [x, shape])
    x = net.op("Transpose", "tokens", [x], {"perm": (0, 2, 1)})
    pads = net.constant("tokens.pads", (0, 1, 0, 0, 0, 0), "int64")
    x = net.op("Pad", "tokens.class", [x, pads])
    position = net.normal("seen.position", (1, count + 1, SEEN), 0.02)
    x = layer_norm(net, net.op("Add", "tokens.position", [x, position]), "seen.before", SEEN)
    form = Form(Width(count + 1, SEEN, SEEN // 64), 4 * SEEN, act="QuickGelu")
    for block in range(depth):
        x = encode(net, x, f"seen.{block}", form)
    x = layer_norm(net, pick(net, x, "seen.class"), "seen.after", SEEN)
    return net.op("MatMul", "seen.shared", [x, net.normal("seen.weight", (SEEN, SHARED), 0.05)])


def _written(net: Net, words: ir.Value, depth: int) -> ir.Value:
    """(N, words, features) -> (N, shared features) of length one."""
    position = net.normal("written.position", (1, WORDS, WRITTEN), 0.02)
    x = net.op("Add", "written.placed", [words, position])
    form = Form(Width(WORDS, WRITTEN, WRITTEN // 64), 4 * WRITTEN, act="QuickGelu", causal=True)
    for block in range(depth):
        x = encode(net, x, f"written.{block}", form)
    x = pick(net, layer_norm(net, x, "written.after", WRITTEN), "written.end", WORDS - 1)
    weight = net.normal("written.weight", (WRITTEN, SHARED), 0.05)
    return _unit(net, net.op("MatMul", "written.shared", [x, weight]), "written")


def _unit(net: Net, x: ir.Value, name: str) -> ir.Value:
    axes = net.constant(f"{name}.axes", (1,), "int64")
    length = net.op("ReduceL2", f"{name}.length", [x, axes], {"keepdims": 1})
    return net.op("Div", f"{name}.unit", [x, length])
