"""A small single-shot detector: a plain convolutional backbone with heads on four of its maps.

Source of the heads: Liu et al., "SSD: Single shot multibox detector", 2016, section 2.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, batch_norm, conv, image_shape, relu, require

STAGES = (32, 64, 128, 256, 256, 128)
"""Channels of stages of two convolutions, the first of which halves the map."""
HEADS = 4
"""So many last stages have heads."""


def detector(
    batch: int | None = None,
    classes: int = 25,
    *,
    image_size: int | None = 256,
    boxes: int = 4,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, anchors, classes), with ``boxes`` anchors at each place of a map.

    Of the ``classes`` values of an anchor four are its box's. ``image_size=None`` leaves height and
    width symbolic.
    """
    require(boxes > 0, f"an anchor needs a box, boxes is {boxes}")
    net = Net("detector", image_shape(batch, 3, image_size), seed=seed)
    h, channels = net.x, 3
    found = []
    for stage, width in enumerate(STAGES):
        h = _conv_norm_relu(net, h, f"stage{stage}.0", (channels, width), stride=2)
        h = _conv_norm_relu(net, h, f"stage{stage}.1", (width, width), stride=1)
        channels = width
        if stage >= len(STAGES) - HEADS:
            found.append(_head(net, h, f"head{stage}", (width, boxes * classes), classes))
    anchors = net.op("Concat", "anchors", found, {"axis": 1})
    return net.finish(anchors, _anchors(image_size, boxes), classes)


def _conv_norm_relu(
    net: Net, x: ir.Value, name: str, channels: tuple[int, int], *, stride: int
) -> ir.Value:
    h = conv(net, x, f"{name}.conv", channels, (3, 3), stride=stride, pad=1, bias=False)
    return relu(net, batch_norm(net, h, f"{name}.bn", channels[1]), f"{name}.relu")


def _head(net: Net, x: ir.Value, name: str, channels: tuple[int, int], classes: int) -> ir.Value:
    h = conv(net, x, f"{name}.conv", channels, (3, 3), pad=1)
    h = net.op("Transpose", f"{name}.last", [h], {"perm": (0, 2, 3, 1)})
    shape = net.constant(f"{name}.shape", (0, -1, classes), "int64")
    return net.op("Reshape", f"{name}.anchors", [h, shape])


def _anchors(image_size: int | None, boxes: int) -> int | str:
    """Anchors of all maps; symbolic where the image's size is."""
    if image_size is None:
        return "A"
    count, size = 0, image_size
    for stage in range(len(STAGES)):
        size = (size + 1) // 2
        count += boxes * size**2 if stage >= len(STAGES) - HEADS else 0
    return count
