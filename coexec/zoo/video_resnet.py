"""Residual networks on video: 3-D, mixed and (2+1)-D convolutions.

Source: Tran et al., "A closer look at spatiotemporal convolutions for action recognition", 2018, in
torchvision's form with 18 layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import Net, batch_norm, conv, global_pool, linear, relu

WIDTHS, BLOCKS = (64, 128, 256, 512), 2
SPACE_TIME, SPACE, APART = "3d", "2d", "2+1d"


@dataclass(frozen=True)
class Step:
    """A convolution: channels of operand and result, its form and its stride."""

    channels: tuple[int, int]
    form: str
    stride: int = 1


def resnet_3d(
    batch: int | None = None,
    classes: int = 400,
    *,
    frames: int = 16,
    image_size: int = 112,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, frames, size, size) -> (N, classes)."""
    return _network("resnet_3d", (SPACE_TIME,) * 4, batch, classes, (frames, image_size), seed)


def resnet_mixed(
    batch: int | None = None,
    classes: int = 400,
    *,
    frames: int = 16,
    image_size: int = 112,
    seed: int = 0,
) -> ir.Model:
    """3-D at first, then frame by frame: (N, 3, frames, size, size) -> (N, classes)."""
    forms = (SPACE_TIME, SPACE, SPACE, SPACE)
    return _network("resnet_mixed", forms, batch, classes, (frames, image_size), seed)


def resnet_2plus1d(
    batch: int | None = None,
    classes: int = 400,
    *,
    frames: int = 16,
    image_size: int = 112,
    seed: int = 0,
) -> ir.Model:
    """Space, then time: (N, 3, frames, size, size) -> (N, classes)."""
    return _network("resnet_2plus1d", (APART,) * 4, batch, classes, (frames, image_size), seed)


def _network(
    name: str,
    forms: tuple[str, ...],
    batch: int | None,
    classes: int,
    size: tuple[int, int],
    seed: int,
) -> ir.Model:
    frames, side = size
    net = Net(name, (batch, 3, frames, side, side), seed=seed)
    x = _stem(net, apart=forms[0] == APART)
    channels = WIDTHS[0]
    for stage, (form, width) in enumerate(zip(forms, WIDTHS, strict=True)):
        for block in range(BLOCKS):
            stride = 2 if stage and block == 0 else 1
            x = _block(net, x, f"layer{stage + 1}.{block}", Step((channels, width), form, stride))
            channels = width
    return net.finish(linear(net, global_pool(net, x), "fc", (channels, classes)), classes)


def _stem(net: Net, *, apart: bool) -> ir.Value:
    if not apart:
        x = _norm_conv(net, net.x, "stem", (3, 64), (3, 7, 7), (1, 2, 2))
        return relu(net, x, "stem.relu")
    x = _norm_conv(net, net.x, "stem.space", (3, 45), (1, 7, 7), (1, 2, 2))
    x = _norm_conv(net, relu(net, x, "stem.relu1"), "stem.time", (45, 64), (3, 1, 1), (1, 1, 1))
    return relu(net, x, "stem.relu2")


def _block(net: Net, x: ir.Value, name: str, step: Step) -> ir.Value:
    h = relu(net, _convolve(net, x, f"{name}.conv1", step), f"{name}.relu1")
    out = step.channels[1]
    # Both parts of (2+1)-D convolutions of a block are as wide as its first 3-D one has weights.
    h = _convolve(net, h, f"{name}.conv2", Step((out, out), step.form), step.channels)
    if step.stride != 1 or step.channels[0] != out:
        frames = 1 if step.form == SPACE else step.stride
        x = _norm_conv(
            net, x, f"{name}.down", step.channels, (1, 1, 1), (frames, step.stride, step.stride)
        )
    return relu(net, net.op("Add", f"{name}.add", [h, x]), f"{name}.relu2")


def _convolve(
    net: Net, x: ir.Value, name: str, step: Step, of: tuple[int, int] | None = None
) -> ir.Value:
    stride = step.stride
    if step.form == SPACE:
        return _norm_conv(net, x, name, step.channels, (1, 3, 3), (1, stride, stride))
    if step.form == SPACE_TIME:
        return _norm_conv(net, x, name, step.channels, (3, 3, 3), (stride,) * 3)
    inputs, out = of or step.channels
    middle = inputs * out * 27 // (inputs * 9 + 3 * out)
    h = _norm_conv(
        net, x, f"{name}.space", (step.channels[0], middle), (1, 3, 3), (1, stride, stride)
    )
    h = relu(net, h, f"{name}.relu")
    return _norm_conv(net, h, f"{name}.time", (middle, step.channels[1]), (3, 1, 1), (stride, 1, 1))


def _norm_conv(
    net: Net,
    x: ir.Value,
    name: str,
    channels: tuple[int, int],
    kernel: tuple[int, int, int],
    stride: tuple[int, ...],
) -> ir.Value:
    pad = tuple(tap // 2 for tap in kernel)
    h = conv(net, x, name, channels, kernel, stride=stride, pad=pad, bias=False)
    return batch_norm(net, h, f"{name}.norm", channels[1])
