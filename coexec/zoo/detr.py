"""DETR: objects found by a transformer on a residual network's features.

Sources: Carion et al., "End-to-end object detection with transformers", 2020; Meng et al.,
"Conditional DETR for fast training convergence", 2021, whose queries look for content and for
places by features of their own.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import onnx_ir as ir

from coexec.zoo.attention import Form, attend, mix, perceptron, rows
from coexec.zoo.builder import Net
from coexec.zoo.layers import NONE, Layers
from coexec.zoo.residual import RESNET50, RESNET101, Residual, stages, stem
from coexec.zoo.transformer import Width, layer_norm, project

FEATURES, HEADS, HIDDEN, DEPTH, QUERIES = 256, 8, 2048, 6, 100
CONDITIONAL = 300
"""Queries of the conditional network."""


def detr_resnet50(
    batch: int | None = None, classes: int = 92, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> classes and boxes of 100 objects (N, 100, classes + 4)."""
    return _detr("detr_resnet50", RESNET50, batch, classes, image_size, seed)


def detr_resnet101(
    batch: int | None = None, classes: int = 92, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> classes and boxes of 100 objects (N, 100, classes + 4)."""
    return _detr("detr_resnet101", RESNET101, batch, classes, image_size, seed)


def detr_resnet50_dc5(
    batch: int | None = None, classes: int = 92, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """Its last stage dilated: (N, 3, size, size) -> classes and boxes (N, 100, classes + 4)."""
    dilated = replace(RESNET50, dilated=1)
    return _detr("detr_resnet50_dc5", dilated, batch, classes, image_size, seed)


def detr_resnet101_dc5(
    batch: int | None = None, classes: int = 92, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """Its last stage dilated: (N, 3, size, size) -> classes and boxes (N, 100, classes + 4)."""
    dilated = replace(RESNET101, dilated=1)
    return _detr("detr_resnet101_dc5", dilated, batch, classes, image_size, seed)


def conditional_detr_resnet50(
    batch: int | None = None, classes: int = 91, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> classes and boxes of 300 objects (N, 300, classes + 4)."""
    layers = Layers("conditional_detr_resnet50", batch, (3, image_size, image_size), seed)
    net = layers.net
    memory, _, tokens = _encoded(layers, RESNET50)
    queries = net.normal("queries", (1, CONDITIONAL, FEATURES), 0.02)
    # Sines of pixels and of the places that queries begin at, known before any image.
    place, sines = (
        _started(net, memory, tokens, "place"),
        _started(net, memory, CONDITIONAL, "sines"),
    )
    x = _started(net, memory, CONDITIONAL)
    for block in range(DEPTH):
        name = f"decoder.{block}"
        x = _normed(net, x, _content_and_place(net, x, queries, f"{name}.self"), f"{name}.self")
        moved = sines
        if block:
            h = project(net, x, f"{name}.moved.0", (FEATURES, FEATURES))
            h = net.op("Relu", f"{name}.moved.relu", [h])
            h = project(net, h, f"{name}.moved.1", (FEATURES, FEATURES))
            moved = net.op("Mul", f"{name}.moved", [sines, h])
        first = None if block else queries
        h = _looked_up(net, (x, moved, first), (memory, place), tokens, name)
        x = _normed(net, x, h, name)
        form = Form(Width(CONDITIONAL, FEATURES, HEADS), HIDDEN, act="Relu")
        x = _normed(net, x, perceptron(net, x, f"{name}.mlp", form), f"{name}.mlp")
    return _objects(net, layer_norm(net, x, "decoder.norm", FEATURES), CONDITIONAL, classes)


def _detr(
    name: str, backbone: Residual, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed)
    memory, place, tokens = _encoded(layers, backbone)
    return _objects(layers.net, _decoded(layers.net, memory, place, tokens), QUERIES, classes)


def _encoded(layers: Layers, backbone: Residual) -> tuple[ir.Value, ir.Value, int]:
    """Tokens of the image (N, tokens, features), their places, and how many there are."""
    net = layers.net
    x = stages(layers, stem(layers), backbone)[-1]
    x = layers.conv(x, FEATURES, norm=False, act=NONE)
    tokens, memory = x.height * x.width, rows(layers, x)
    # Sines of positions are no parameters; their values do not matter to anything here.
    place = net.constant("position", np.zeros((1, tokens, FEATURES)), "float32")
    for block in range(DEPTH):
        memory = _block(net, memory, place, None, tokens, f"encoder.{block}")
    return memory, place, tokens


def _objects(net: Net, found: ir.Value, queries: int, classes: int) -> ir.Model:
    kinds = project(net, found, "class", (FEATURES, classes))
    boxes = found
    for layer, out in enumerate((FEATURES, FEATURES, 4)):
        boxes = project(net, boxes, f"box.{layer}", (FEATURES, out))
        boxes = net.op("Sigmoid" if out == 4 else "Relu", f"box.{layer}.act", [boxes])
    both = net.op("Concat", "objects", [kinds, boxes], {"axis": -1})
    return net.finish(both, queries, classes + 4)


def _started(net: Net, memory: ir.Value, tokens: int, name: str = "start") -> ir.Value:
    """Zeros for each image, such as the first block starts from: (N, tokens, features)."""
    axes = net.constant(f"{name}.axes", (1,), "int64")
    mean = net.op("ReduceMean", f"{name}.mean", [memory, axes], {"keepdims": 1})
    zero = net.constant(f"{name}.zero", np.zeros((1, tokens, FEATURES)), "float32")
    return net.op("Mul", name, [mean, zero])


def _decoded(net: Net, memory: ir.Value, place: ir.Value, tokens: int) -> ir.Value:
    queries = net.normal("queries", (1, QUERIES, FEATURES), 0.02)
    x = _started(net, memory, QUERIES)
    for block in range(DEPTH):
        name = f"decoder.{block}"
        width = Width(QUERIES, FEATURES, HEADS)
        asked = net.op("Add", f"{name}.asked", [x, queries])
        h = attend(net, asked, asked, QUERIES, f"{name}.self", width, values=x)
        x = _normed(net, x, h, f"{name}.self")
        x = _block(net, x, queries, (memory, place), tokens, name)
    return layer_norm(net, x, "decoder.norm", FEATURES)


def _block(
    net: Net,
    x: ir.Value,
    place: ir.Value,
    memory: tuple[ir.Value, ir.Value] | None,
    tokens: int,
    name: str,
) -> ir.Value:
    """Attention to ``memory`` and its places (to itself without), then a perceptron."""
    width = Width(tokens if memory is None else QUERIES, FEATURES, HEADS)
    query = net.op("Add", f"{name}.query", [x, place])
    if memory is None:
        h = attend(net, query, query, tokens, name, width, values=x)
    else:
        keys = net.op("Add", f"{name}.keys", list(memory))
        h = attend(net, query, keys, tokens, name, width, values=memory[0])
    x = _normed(net, x, h, name)
    form = Form(width, HIDDEN, act="Relu")
    return _normed(net, x, perceptron(net, x, f"{name}.mlp", form), f"{name}.mlp")


def _normed(net: Net, x: ir.Value, h: ir.Value, name: str) -> ir.Value:
    total = net.op("Add", f"{name}.sum", [x, h])
    return layer_norm(net, total, f"{name}.norm", FEATURES)


def _content_and_place(net: Net, x: ir.Value, queries: ir.Value, name: str) -> ir.Value:
    """Attention between queries, whose content and place are projected apart and added."""
    square, width = (FEATURES, FEATURES), Width(CONDITIONAL, FEATURES, HEADS)
    q, k = (
        net.op(
            "Add",
            f"{name}.{part}",
            [
                project(net, x, f"{name}.{part}.content", square),
                project(net, queries, f"{name}.{part}.place", square),
            ],
        )
        for part in "qk"
    )
    return mix(net, (q, k, project(net, x, f"{name}.v", square)), CONDITIONAL, name, width)


def _looked_up(
    net: Net,
    asked: tuple[ir.Value, ir.Value, ir.Value | None],
    memory: tuple[ir.Value, ir.Value],
    tokens: int,
    name: str,
) -> ir.Value:
    """Attention to the image by content and, side by side with it, by place.

    ``asked`` are content, place and, in the first block, what is added to the content.
    """
    (x, moved, first), square, each = asked, (FEATURES, FEATURES), FEATURES // HEADS
    q, k = (project(net, v, f"{name}.{part}", square) for part, v in (("q", x), ("k", memory[0])))
    place = project(net, memory[1], f"{name}.k.place", square)
    if first is not None:
        q = net.op("Add", f"{name}.q.first", [q, project(net, first, f"{name}.q.place", square)])
        k = net.op("Add", f"{name}.k.first", [k, place])
    sines = project(net, moved, f"{name}.q.sines", square)
    sides = []
    for part, values, count, order in (
        ("q", (q, sines), CONDITIONAL, (0, 2, 1, 3)),
        ("k", (k, place), tokens, (0, 2, 3, 1)),
    ):
        shape = net.constant(f"{name}.{part}.shape", (-1, count, HEADS, each), "int64")
        heads = [net.op("Reshape", f"{name}.{part}.{i}", [v, shape]) for i, v in enumerate(values)]
        both = net.op("Concat", f"{name}.{part}.both", heads, {"axis": -1})
        sides.append(net.op("Transpose", f"{name}.{part}.order", [both], {"perm": order}))
    scale = net.constant(f"{name}.scale.value", 1 / sqrt(2 * each), "float32")
    scores = net.op("Mul", f"{name}.scale", [net.op("MatMul", f"{name}.scores", sides), scale])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    v = project(net, memory[0], f"{name}.v", square)
    shape = net.constant(f"{name}.v.shape", (-1, tokens, HEADS, each), "int64")
    v = net.op("Reshape", f"{name}.v.heads", [v, shape])
    v = net.op("Transpose", f"{name}.v.order", [v], {"perm": (0, 2, 1, 3)})
    mixed = net.op("MatMul", f"{name}.mix", [weights, v])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 2, 1, 3)})
    flat = net.constant(f"{name}.flat.shape", (-1, CONDITIONAL, FEATURES), "int64")
    return project(net, net.op("Reshape", f"{name}.flat", [mixed, flat]), f"{name}.out", square)
