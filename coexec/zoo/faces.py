"""Small networks that Qualcomm publishes: faces, their attributes, and protective clothing.

Source: Qualcomm AI Hub Models (BSD-3-Clause), ``face_det_lite``, ``face_attrib_net`` and
``gear_guard_net``: a detector on a MobileNetV3 with full 3 x 3 convolutions, a network of grouped
and 1 x 1 convolutions with five heads, and YOLOv5's form with BlazeFace's double blocks.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, PRELU, RELU, Layers, Map

DETECTOR = (
    (16, 16, 2, 0),
    (64, 32, 2, 0),
    (96, 32, 1, 0),
    (96, 32, 2, 1),
    (224, 32, 1, 1),
    (224, 32, 1, 1),
    (128, 64, 1, 1),
    (160, 64, 1, 1),
    (256, 96, 2, 1),
)
"""Channels inside and of the result, stride, and whether a second convolution is excited."""
KEPT = (2, 7)
"""Blocks whose results the detector's way up looks at."""
GROUP, BLOCKS, ATTRIBUTES = 32, (2, 6, 3), 5
"""The attributes' channels in a group, blocks of each stage, heads."""


def face_detection(
    batch: int | None = None,
    classes: int = 15,
    *,
    height: int = 480,
    width: int = 640,
    seed: int = 0,
) -> ir.Model:
    """(N, 1, height, width) -> score, box and landmarks (N, classes, height / 8, width / 8)."""
    layers = Layers("face_detection", batch, (1, height, width), seed)
    x = layers.conv(layers.x, 16, 3, stride=2)
    kept = []
    for place, (inside, out, stride, more) in enumerate(DETECTOR):
        x = _detector_block(layers, x, (inside, out), stride, more=bool(more))
        if place in KEPT:
            kept.append(x)
    x = layers.conv(x, 32)
    for beside in reversed(kept):
        up = layers.conv(layers.resize(x, 2), 32, 3)
        x = layers.add(up, layers.conv(beside, 32))
    wide, context = layers.conv(x, 16, 3), layers.conv(x, 8, 3)
    far = layers.conv(layers.conv(context, 8, 3), 8, 3)
    x = layers.concat(wide, layers.conv(context, 8, 3), far)
    heads = [layers.conv(x, out, norm=False, act=NONE) for out in (1, 4, classes - 5)]
    return layers.finish(layers.concat(*heads))


def face_attributes(
    batch: int | None = None, classes: int = 2, *, image_size: int = 128, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> scores of five attributes (N, 5 * classes)."""
    layers = Layers("face_attributes", batch, (3, image_size, image_size), seed, PRELU)
    x = layers.conv(layers.x, 64, 3)
    long = _grouped(layers, _grouped(layers, x, 64, stride=2), 64, act=NONE)
    x = _activated(layers, long, _grouped(layers, x, 64, stride=2, act=NONE))
    found = [x]
    for count in BLOCKS:
        for block in range(count):
            x = _normal(layers, x) if block else _downsampled(layers, x)
        found.append(x)
    net, heads = layers.net, []
    for _ in range(ATTRIBUTES):
        h = _grouped(layers, found[2], 128, wide=128, stride=2)
        h = _grouped(layers, layers.concat(h, found[3]), 128, wide=320, stride=2)
        flat = net.op("Flatten", layers.name("flatten"), [layers.squeeze(h).value], {"axis": 1})
        heads.append(layers.dense(flat, (128, classes)))
    scores = net.op("Concat", "attributes", heads, {"axis": 1})
    return net.finish(scores, ATTRIBUTES * classes)


def gear_guard(
    batch: int | None = None,
    classes: int = 2,
    *,
    height: int = 320,
    width: int = 192,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, boxes, classes + 5)."""
    layers = Layers("gear_guard", batch, (3, height, width), seed)
    x = layers.conv(layers.x, 32, 6, stride=2, pad=2)
    found = []
    for out, count in ((64, 1), (128, 1), (256, 3), (512, 1)):
        x = _doubles(layers, layers.conv(x, out, 3, stride=2), out, count)
        found.append(x)
    tops = [layers.conv(layers.conv(x, 512, 3), 256)]
    x = layers.concat(layers.resize(tops[0], 2), found[2])
    tops.append(layers.conv(_doubles(layers, x, 256, 1), 128))
    x = _doubles(layers, layers.concat(layers.resize(tops[1], 2), found[1]), 128, 1)
    maps = [x]
    for beside, out in ((tops[1], 256), (tops[0], 512)):
        down = layers.conv(x, x.channels, 3, stride=2)
        x = _doubles(layers, layers.concat(down, beside), out, 1)
        maps.append(x)
    each = classes + 5
    heads = [layers.conv(x, 3 * each, norm=False, act=NONE) for x in maps]
    return layers.anchors(heads, each)


def _detector_block(
    layers: Layers, x: Map, widths: tuple[int, int], stride: int, *, more: bool
) -> Map:
    inside, out = widths
    h = layers.conv(x, inside)
    h = layers.conv(h, out, 3, stride=1 if more else stride)
    if more:
        h = layers.conv(h, out, 3, stride=stride)
        h = layers.excite(h, out // 4, bias=False)
    if stride != 1:
        return h
    return layers.add(h, x if x.channels == out else layers.conv(x, out, act=NONE))


def _grouped(
    layers: Layers,
    x: Map,
    out: int,
    *,
    wide: int | None = None,
    stride: int = 1,
    groups: int | None = None,
    act: str | None = None,
) -> Map:
    """A grouped 3 x 3 convolution to ``wide`` channels and a 1 x 1 one to ``out``."""
    h = layers.conv(
        x,
        wide or out,
        3,
        stride=stride,
        groups=groups or x.channels // GROUP,
        norm=False,
        bias=False,
        act=NONE,
    )
    return layers.conv(h, out, act=act)


def _downsampled(layers: Layers, x: Map) -> Map:
    """Half the size and twice the channels, by a short and a long way."""
    channels, groups = x.channels, x.channels // GROUP
    short = _grouped(layers, x, 2 * channels, stride=2)
    long = _grouped(layers, x, 2 * channels, wide=4 * channels, stride=2)
    long = _grouped(layers, long, 2 * channels, wide=4 * channels, groups=groups, act=NONE)
    return _activated(layers, short, long)


def _normal(layers: Layers, x: Map) -> Map:
    h = _grouped(layers, x, x.channels, wide=2 * x.channels)
    return _activated(layers, _grouped(layers, h, x.channels, wide=2 * x.channels, act=NONE), x)


def _activated(layers: Layers, x: Map, y: Map) -> Map:
    return layers.activate(layers.add(x, y), layers.act)


def _doubles(layers: Layers, x: Map, out: int, count: int) -> Map:
    """BlazeFace's double blocks of 5 x 5 depthwise convolutions."""
    for _ in range(count):
        h = layers.conv(layers.depthwise(x, 5, act=NONE), max(out, x.channels) // 2, act=RELU)
        h = layers.conv(layers.depthwise(h, 5, act=NONE), out, act=NONE)
        beside = x if x.channels == out else layers.conv(x, out, norm=False, act=NONE)
        x = layers.activate(layers.add(h, beside), RELU)
    return x
