"""Small networks that see persons: their feet, the pose of a hand, the shape of a face.

Sources: Qualcomm AI Hub Models (BSD-3-Clause), ``foot_track_net``, a detector on a MobileNetV3 with
full 3 x 3 convolutions, and ``facemap_3dmm``, a ResNet-18 of half the width; Zhang et al.,
"MediaPipe hands: On-device real-time hand tracking", 2020, in the newer form of a gesture
recogniser, whose normalisation is folded into convolutions.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU6, SIGMOID, Layers
from coexec.zoo.residual import basic_block

FEET = (
    (16, 16, 1, 0, 0),
    (64, 16, 2, 0, 0),
    (64, 16, 1, 0, 0),
    (96, 32, 2, 1, 1),
    (96, 32, 1, 1, 1),
    (128, 32, 1, 1, 1),
    (128, 64, 2, 0, 0),
    (128, 64, 1, 0, 0),
    (160, 64, 1, 0, 0),
    (160, 64, 1, 0, 0),
    (256, 64, 1, 0, 1),
    (320, 64, 1, 0, 1),
    (320, 64, 1, 1, 1),
    (320, 96, 2, 1, 1),
    (480, 96, 1, 1, 1),
)
"""Channels inside and of the result, stride, a second convolution or none, excited or not."""
KEPT, WIDE = (2, 5, 12), 64
"""Blocks whose results the way up looks at, and its channels."""
HANDS = (
    (4, 3, 2, 24, 1),
    (6, 3, 1, 24, 1),
    (6, 5, 2, 40, 1),
    (6, 5, 1, 40, 1),
    (6, 3, 2, 80, 1),
    (6, 3, 1, 80, 2),
    (6, 5, 1, 112, 1),
    (6, 5, 1, 112, 2),
    (6, 5, 2, 192, 1),
    (6, 5, 1, 192, 3),
)
"""Expansion, kernel, stride, channels of the result and number of inverted residuals."""
POINTS = 63
"""Coordinates of the points of a hand."""


def foot_track(
    batch: int | None = None,
    classes: int = 17,
    *,
    height: int = 480,
    width: int = 640,
    seed: int = 0,
) -> ir.Model:
    """Scores and boxes of 3 kinds, and ``classes`` points: maps of a quarter of the size."""
    layers = Layers("foot_track", batch, (3, height, width), seed)
    x = layers.conv(layers.x, 3, act=NONE)
    x, kept = layers.conv(x, 16, 3, stride=2), []
    for place, (inside, out, stride, twice, excited) in enumerate(FEET):
        h = layers.conv(layers.conv(x, inside), out, 3, stride=1 if twice else stride)
        h = layers.conv(h, out, 3, stride=stride) if twice else h
        h = layers.excite(h, out // 4, bias=False) if excited else h
        if stride == 1:
            h = layers.add(h, x if x.channels == out else layers.conv(x, out, act=NONE))
        x = h
        if place in KEPT:
            kept.append(x)
    x = layers.conv(x, WIDE)
    for beside in reversed(kept):
        x = layers.add(layers.conv(layers.resize(x, 2), WIDE, 3), layers.conv(beside, WIDE))
    near, few = layers.conv(x, WIDE // 2, 3), layers.conv(x, WIDE // 4, 3)
    far = layers.conv(layers.conv(few, WIDE // 4, 3), WIDE // 4, 3)
    x = layers.concat(near, layers.conv(few, WIDE // 4, 3), far)
    heads = []
    for out, act in ((1, SIGMOID), (4, NONE)) * 3 + ((2 * classes, NONE), (classes, SIGMOID)):
        h = layers.conv(layers.conv(x, WIDE, 3), out, norm=False, act=act)
        heads.append(h)
    return layers.finish(layers.concat(*heads))


def face_shape(
    batch: int | None = None, classes: int = 265, *, image_size: int = 128, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> coefficients of a face's shape and place (N, classes)."""
    layers = Layers("face_shape", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 1, norm=False, act=NONE)
    x = layers.max_pool(layers.conv(x, 32, 7, stride=2), 3, 2, 1)
    for stage, widths in enumerate(((32, 32), (64, 64), (128, 128), (256, 512))):
        for block, out in enumerate(widths):
            x = basic_block(layers, x, out, 2 if stage and block == 0 else 1)
    return layers.logits(x, classes)


def hand_pose(
    batch: int | None = None, classes: int = 2, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """Scores, and 21 points twice, in the image and in the world: (N, classes + 126)."""
    layers = Layers("hand_pose", batch, (3, image_size, image_size), seed, RELU6)
    x = layers.conv(layers.x, 24, 3, stride=2, norm=False)
    x = layers.conv(layers.depthwise(x, 3, norm=False), 16, norm=False, act=NONE)
    for expansion, kernel, stride, out, count in HANDS:
        for _ in range(count):
            h = layers.conv(x, expansion * x.channels, norm=False)
            h = layers.depthwise(h, kernel, stride=stride, norm=False)
            h = layers.conv(h, out, norm=False, act=NONE)
            x = layers.add(h, x) if stride == 1 and x.channels == out else h
    x = layers.depthwise(layers.conv(x, 6 * x.channels, norm=False), 3, norm=False)
    net = layers.net
    flat = net.op("Flatten", "flatten", [layers.squeeze(x).value], {"axis": 1})
    score = layers.dense(flat, (x.channels, classes))
    found = [net.op("Sigmoid", "score.sigmoid", [score])]
    found += [layers.dense(flat, (x.channels, POINTS)) for _ in range(2)]
    return net.finish(net.op("Concat", "points", found, {"axis": 1}), classes + 2 * POINTS)
