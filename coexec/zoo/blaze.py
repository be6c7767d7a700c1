"""MediaPipe's networks for faces, hands, poses and selfies.

Sources: Bazarevsky et al., "BlazeFace: Sub-millisecond neural face detection on mobile GPUs", 2019
(the ones for both cameras); Kartynnik et al., "Real-time facial surface geometry from monocular
video on mobile GPUs", 2019; Zhang et al., "MediaPipe hands", 2020; Bazarevsky et al., "BlazePose:
On-device real-time body pose tracking", 2020; the selfie segmentation of MediaPipe,
square. Sizes as in zmurez' PyTorch code.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import HARDSWISH, NONE, PRELU, RELU, SIGMOID, Layers, Map

FACE = ((24, 1),) * 7 + ((24, 2),) + ((24, 1),) * 7 + ((48, 2),) + ((48, 1),) * 7
"""Channels and stride of each block of the face detector up to an eighth of the image."""
FRONT = (
    *((24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1)),
    *((88, 1), (96, 2), (96, 1), (96, 1), (96, 1), (96, 1)),
)
"""The same of the front camera's, up to a sixteenth."""
POSE = ((48, 3), (64, 3), (96, 6), (128, 7))
"""Channels and blocks of each size of the detector of poses, behind the one that halves."""
BODY = ((48, 4), (96, 5), (192, 6), (288, 7))
"""Channels and blocks of each size of the points of bodies."""
LANDMARKS = (16, 32, 64, 128, 128)
"""Channels by stage of the face's landmarks; two blocks at each size, then one that halves it."""


def blazeface(
    batch: int | None = None, classes: int = 17, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> box, points and score of 896 anchors (N, 896, classes)."""
    layers = Layers("blazeface", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 24, 5, stride=2, norm=False)
    for out, stride in FACE:
        x = _blaze(layers, x, out, stride=stride)
    x = _blaze(layers, x, 96, stride=2)
    for _ in range(7):
        x = _blaze(layers, x, 96)
    last = _blaze(layers, x, 96, stride=2)
    heads = []
    for each, count in ((x, 2), (last, 6)):
        points = layers.conv(each, count * (classes - 1), norm=False, act=NONE)
        heads.append(layers.concat(points, layers.conv(each, count, norm=False, act=NONE)))
    return layers.anchors(heads, classes)


def blazeface_features(
    batch: int | None = None, classes: int = 96, *, image_size: int = 128, seed: int = 0
) -> ir.Model:
    """The front camera's up to its heads: (N, 3, size, size) -> (N, classes, size / 16, ...)."""
    layers = Layers("blazeface_features", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 24, 5, stride=2, norm=False)
    for out, stride in FRONT:
        x = _blaze(layers, x, out if out < FRONT[-1][0] else classes, stride=stride)
    return layers.finish(x)


def pose_detector(
    batch: int | None = None, classes: int = 13, *, image_size: int = 128, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> box, points and score of 896 anchors (N, 896, classes)."""
    layers = Layers("pose_detector", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 48, 5, norm=False)
    for out, count in POSE:
        if out > x.channels:
            x = _blaze(layers, x, out, kernel=5, stride=2, projected=True)
        for _ in range(count):
            x = _blaze(layers, x, out, kernel=5)
    last = _blaze(layers, x, 256, kernel=5, stride=2, projected=True)
    for _ in range(6):
        last = _blaze(layers, last, 256, kernel=5)
    heads = []
    for each, count in ((x, 2), (last, 6)):
        points = layers.conv(each, count * (classes - 1), norm=False, act=NONE)
        heads.append(layers.concat(points, layers.conv(each, count, norm=False, act=NONE)))
    return layers.anchors(heads, classes)


def face_landmarks(
    batch: int | None = None, classes: int = 1405, *, image_size: int = 192, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> 468 points in three dimensions and a score (N, classes, 1, 1)."""
    layers = Layers("face_landmarks", batch, (3, image_size, image_size), seed, PRELU)
    x = layers.conv(layers.x, 16, 3, stride=2, norm=False)
    for stage, following in enumerate((*LANDMARKS[1:], None)):
        for _ in range(2):
            x = _blaze(layers, x, LANDMARKS[stage])
        if following:
            x = _blaze(layers, x, following, stride=2)
    found = []
    for blocks, results in ((2, classes - 1), (0, 1)):
        h = _blaze(layers, x, 128, stride=2)
        for _ in range(blocks):
            h = _blaze(layers, h, 128)
        h = _blaze(layers, layers.conv(h, 32, norm=False), 32)
        found.append(layers.conv(h, results, 3, pad=0, norm=False, act=NONE))
    return layers.finish(layers.concat(*found))


def palm_detector(
    batch: int | None = None, classes: int = 19, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> box, points and score of 2,944 anchors (N, 2944, classes)."""
    layers = Layers("palm_detector", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 32, 3, stride=2, norm=False)
    for _ in range(7):
        x = _blaze(layers, x, 32)
    found = []
    for out in (64, 128, 256, 256):
        x = _blaze(layers, x, out, stride=2)
        for _ in range(7):
            x = _blaze(layers, x, out)
        found.append(x)
    _, fine, middle, deep = found
    middle = _blaze(layers, layers.add(middle, layers.transposed(deep, 256)), 256)
    fine = _blaze(layers, layers.add(fine, layers.transposed(middle, 128)), 128)
    heads = []
    for each, count in ((fine, 2), (middle, 2), (deep, 6)):
        points = layers.conv(each, count * (classes - 1), norm=False, act=NONE)
        heads.append(layers.concat(points, layers.conv(each, count, norm=False, act=NONE)))
    return layers.anchors(heads, classes)


def hand_landmarks(
    batch: int | None = None, classes: int = 65, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> 21 points in three dimensions and two scores (N, classes, 1, 1)."""
    layers = Layers("hand_landmarks", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 24, 3, stride=2, norm=False)
    kept = []
    for width, out in ((24, 48), (48, 96), (96, 96), (96, 96)):
        for _ in range(2):
            x = _blaze(layers, x, width, kernel=5)
        x = _blaze(layers, x, out, kernel=5, stride=2)
        kept.append(x)
    first, second, third, fourth = kept
    third = _blaze(layers, layers.add(third, layers.resize(fourth, 2, linear=True)), 96, kernel=5)
    x = layers.add(second, layers.resize(third, 2, linear=True))
    x = layers.conv(_blaze(layers, x, 96, kernel=5), 48, norm=False, act=NONE)
    x = layers.add(first, layers.resize(x, 2, linear=True))
    for _ in range(4):
        x = _blaze(layers, x, 48, kernel=5)
    for out in (96, 288, 288, 288, 288):
        x = _blaze(layers, x, out, kernel=5, stride=2)
        for _ in range(4):
            x = _blaze(layers, x, out, kernel=5)
    return layers.finish(layers.conv(x, classes, 2, pad=0, norm=False, act=NONE))


def pose_landmarks(
    batch: int | None = None, classes: int = 125, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> 31 points of a body and a score (N, classes, 1, 1), without its map."""
    layers = Layers("pose_landmarks", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 24, 3, stride=2, norm=False)
    x = _blaze(layers, _blaze(layers, x, 24), 24)
    found = []
    for out, blocks in BODY:
        x = _row(layers, x, out, blocks)
        found.append(x)
    total = _beside(layers, x, 48)
    for each in reversed(found[:-1]):
        total = layers.add(_beside(layers, each, 48), layers.resize(total, 2, linear=True))
    x = total
    for (out, blocks), each in zip(BODY[1:], found[1:], strict=True):
        x = layers.add(_row(layers, x, out, blocks), _beside(layers, each, out))
    x = _blaze(layers, _row(layers, _row(layers, x, 288, 8), 288, 7), 288)
    return layers.finish(layers.conv(x, classes, 2, pad=0, norm=False, act=NONE))


def _row(layers: Layers, x: Map, out: int, blocks: int) -> Map:
    """A block that halves the size, and others behind it."""
    x = _blaze(layers, x, out, stride=2)
    for _ in range(blocks - 1):
        x = _blaze(layers, x, out)
    return x


def _beside(layers: Layers, x: Map, out: int) -> Map:
    return layers.conv(layers.depthwise(x, 3, norm=False, act=NONE), out, norm=False)


def selfie_segmentation(
    batch: int | None = None, classes: int = 1, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("selfie_segmentation", batch, (3, image_size, image_size), seed)
    first = _plain(layers, layers.x, 16, HARDSWISH, kernel=3, stride=2)
    x = layers.depthwise(_plain(layers, first, 16, RELU), 3, stride=2, norm=False)
    second = _plain(layers, _excited(layers, x, 8), 16, NONE)
    x = layers.depthwise(_plain(layers, second, 72, RELU), 3, stride=2, norm=False)
    h = _plain(layers, x, 24, NONE)
    third = layers.depthwise(_plain(layers, h, 88, RELU), 3, norm=False)
    third = layers.add(_plain(layers, third, 24, NONE), h)
    x = _plain(layers, third, 96, HARDSWISH)
    x = layers.depthwise(x, 5, stride=2, act=HARDSWISH, norm=False)
    x = _plain(layers, _excited(layers, x, 24), 32, NONE)
    for inside, squeezed in ((128, 32), (128, 32), (96, 24), (96, 24)):
        h = layers.depthwise(_plain(layers, x, inside, HARDSWISH), 5, act=HARDSWISH, norm=False)
        x = layers.add(_plain(layers, _excited(layers, h, squeezed), 32, NONE), x)
    gate = _plain(layers, layers.squeeze(x), 128, SIGMOID)
    x = layers.multiply(_plain(layers, x, 128, RELU), gate)
    for beside in (third, second, first):
        x = _merged(
            layers, _plain(layers, layers.resize(x, 2, linear=True), beside.channels, NONE), beside
        )
    return layers.finish(layers.transposed(x, classes, act=SIGMOID))


def _blaze(
    layers: Layers,
    x: Map,
    out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    projected: bool = False,
) -> Map:
    """A depthwise and a 1 x 1 convolution beside the input, pooled and padded (or projected)."""
    h = layers.depthwise(x, kernel, stride=stride, act=NONE, norm=False)
    h = layers.conv(h, out, norm=False, act=NONE)
    if stride > 1:
        x = layers.max_pool(x, stride, stride)
    if projected:
        x = layers.conv(x, out, norm=False, act=NONE)
    elif out > x.channels:
        x = layers.pad_channels(x, out)
    return layers.activate(layers.add(h, x), layers.act)


def _plain(layers: Layers, x: Map, out: int, act: str, *, kernel: int = 1, stride: int = 1) -> Map:
    return layers.conv(x, out, kernel, stride=stride, norm=False, act=act)


def _excited(layers: Layers, x: Map, squeezed: int) -> Map:
    return layers.excite(x, squeezed)


def _merged(layers: Layers, x: Map, beside: Map) -> Map:
    """``beside`` as far as the mean of both lets it through, added and refined."""
    gate = layers.squeeze(layers.add(x, beside))
    gate = _plain(layers, _plain(layers, gate, x.channels, RELU), x.channels, SIGMOID)
    x = _plain(layers, layers.add(x, layers.multiply(beside, gate)), x.channels, RELU)
    return layers.add(x, layers.depthwise(x, 3, norm=False))
