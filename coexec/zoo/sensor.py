"""One-dimensional dilated convolutions for sensor data such as a phone's accelerometer.

The stack of growing dilations is that of Bai et al., "An empirical evaluation of generic
convolutional and recurrent networks for sequence modeling", 2018, without its causality: a
recording is classified as a whole.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, batch_norm, conv, global_pool, linear, relu, require

KERNEL = 5
DILATIONS = (1, 2, 4, 8)


def sensor_cnn(
    batch: int | None = None,
    classes: int = 4,
    *,
    channels: int = 6,
    length: int | None = 100,
    width: int = 32,
    seed: int = 0,
) -> ir.Model:
    """(N, channels, length) -> (N, classes); ``length=None`` leaves it symbolic (``L``).

    A position of the last layer sees 61 time steps.
    """
    require(channels > 0 and width > 0, "channels and width must be positive")
    net = Net("sensor_cnn", (batch, channels, "L" if length is None else length), seed=seed)
    h, inputs = net.x, channels
    for i, dilation in enumerate(DILATIONS, start=1):
        pad = dilation * (KERNEL - 1) // 2
        h = conv(
            net,
            h,
            f"block{i}.conv",
            (inputs, width),
            (KERNEL,),
            pad=pad,
            dilation=dilation,
            bias=False,
        )
        h = relu(net, batch_norm(net, h, f"block{i}.bn", width), f"block{i}.relu")
        inputs = width
    return net.finish(linear(net, global_pool(net, h), "fc", (width, classes)), classes)
