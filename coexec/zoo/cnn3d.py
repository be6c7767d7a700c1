"""A small 3-D CNN for short video clips or volumes, after C3D.

Source: Tran et al., "Learning spatiotemporal features with 3D convolutional networks", 2015; the
first pooling keeps the time axis, as there. Narrower, with BatchNormalization.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, batch_norm, conv, global_pool, linear, max_pool, relu, require


def cnn3d(
    batch: int | None = None,
    classes: int = 10,
    *,
    channels: int = 3,
    frames: int = 16,
    image_size: int = 32,
    width: int = 16,
    seed: int = 0,
) -> ir.Model:
    """(N, channels, frames, size, size) -> (N, classes)."""
    require(frames >= 4 and image_size >= 8, "cnn3d needs 4 frames and 8 x 8 pixels at least")
    require(channels > 0 and width > 0, "channels and width must be positive")
    net = Net("cnn3d", (batch, channels, frames, image_size, image_size), seed=seed)
    h, inputs = net.x, channels
    for i, pool in enumerate(((1, 2, 2), (2, 2, 2), (2, 2, 2)), start=1):
        outputs = width * 2 ** (i - 1)
        h = conv(net, h, f"conv{i}", (inputs, outputs), (3, 3, 3), pad=1, bias=False)
        h = relu(net, batch_norm(net, h, f"bn{i}", outputs), f"relu{i}")
        h = max_pool(net, h, f"pool{i}", pool, stride=pool)
        inputs = outputs
    return net.finish(linear(net, global_pool(net, h), "fc", (inputs, classes)), classes)
