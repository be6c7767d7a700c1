"""DETR: objects found by a transformer on a residual network's features.

Source: Carion et al., "End-to-end object detection with transformers", 2020.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from coexec.zoo.attention import Form, attend, perceptron, rows
from coexec.zoo.builder import Net
from coexec.zoo.layers import NONE, Layers
from coexec.zoo.residual import RESNET50, RESNET101, Residual, stages, stem
from coexec.zoo.transformer import Width, layer_norm, project

FEATURES, HEADS, HIDDEN, DEPTH, QUERIES = 256, 8, 2048, 6, 100


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


def _detr(
    name: str, backbone: Residual, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed)
    net = layers.net
    x = stages(layers, stem(layers), backbone)[-1]
    x = layers.conv(x, FEATURES, norm=False, act=NONE)
    tokens, memory = x.height * x.width, rows(layers, x)
    # Sines of positions are no parameters; their values do not matter to anything here.
    place = net.constant("position", np.zeros((1, tokens, FEATURES)), "float32")
    for block in range(DEPTH):
        memory = _block(net, memory, place, None, tokens, f"encoder.{block}")
    found = _decoded(net, memory, place, tokens)
    kinds = project(net, found, "class", (FEATURES, classes))
    boxes = found
    for layer, out in enumerate((FEATURES, FEATURES, 4)):
        boxes = project(net, boxes, f"box.{layer}", (FEATURES, out))
        boxes = net.op("Sigmoid" if out == 4 else "Relu", f"box.{layer}.act", [boxes])
    both = net.op("Concat", "objects", [kinds, boxes], {"axis": -1})
    return net.finish(both, QUERIES, classes + 4)


def _decoded(net: Net, memory: ir.Value, place: ir.Value, tokens: int) -> ir.Value:
    queries = net.normal("queries", (1, QUERIES, FEATURES), 0.02)
    # The first block starts from zeros, as many as there are images.
    axes = net.constant("start.axes", (1,), "int64")
    mean = net.op("ReduceMean", "start.mean", [memory, axes], {"keepdims": 1})
    zero = net.constant("start.zero", np.zeros((1, QUERIES, FEATURES)), "float32")
    x = net.op("Mul", "start", [mean, zero])
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
