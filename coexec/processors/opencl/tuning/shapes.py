"""Representative calls: the products and convolutions that networks for images and sensors need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS

VERSION = 21
"""Opset version that the calls are meant in."""

PRODUCTS = (
    *((size, size, size) for size in (256, 512, 1024, 2048)),
    (1, 1000, 2048),
    (8, 1000, 512),
    (16, 768, 768),
    (32, 512, 1024),
    (64, 500, 800),
)
"""(M, N, K) of matrix products, square and skinny."""

CONVOLUTIONS = (
    # ResNet-18 and -50
    (3, 64, (224, 224), 7, 2, 1, 1),
    (64, 64, (56, 56), 3, 1, 1, 1),
    (64, 128, (56, 56), 3, 2, 1, 1),
    (64, 128, (56, 56), 1, 2, 1, 1),
    (128, 128, (28, 28), 3, 1, 1, 1),
    (256, 256, (14, 14), 3, 1, 1, 1),
    (512, 512, (7, 7), 3, 1, 1, 1),
    (64, 256, (56, 56), 1, 1, 1, 1),
    (256, 64, (56, 56), 1, 1, 1, 1),
    (1024, 256, (14, 14), 1, 1, 1, 1),
    (512, 2048, (7, 7), 1, 1, 1, 1),
    # the same for images of 32 x 32
    (64, 64, (32, 32), 3, 1, 1, 1),
    (128, 128, (16, 16), 3, 1, 1, 1),
    (256, 256, (8, 8), 3, 1, 1, 1),
    # VGG
    (64, 64, (224, 224), 3, 1, 1, 1),
    (256, 256, (56, 56), 3, 1, 1, 1),
    (512, 512, (14, 14), 3, 1, 1, 1),
    # MobileNetV2
    (3, 32, (224, 224), 3, 2, 1, 1),
    (32, 32, (112, 112), 3, 1, 32, 1),
    (144, 144, (56, 56), 3, 2, 144, 1),
    (576, 576, (14, 14), 3, 1, 576, 1),
    (96, 24, (56, 56), 1, 1, 1, 1),
    # series and volumes
    (64, 64, (512,), 3, 1, 1, 2),
    (16, 32, (16, 32, 32), 3, 1, 1, 1),
)
"""Input and output channels, spatial size, kernel, stride, groups and dilation of convolutions."""


def representative_calls(batch_sizes: tuple[int, ...]) -> Iterator[OpCall]:
    """Products, then convolutions forward and both their gradients at each batch size."""
    for m, n, k in PRODUCTS:
        yield _typed("MatMul", ((m, k), (k, n)), {})
    for batch in batch_sizes:
        for inner, outer, size, kernel, stride, group, dilation in CONVOLUTIONS:
            x = (batch, inner, *size)
            w = (outer, inner // group, *(kernel,) * len(size))
            pad = dilation * (kernel // 2)
            attributes = {
                "strides": (stride,) * len(size),
                "pads": (pad,) * (2 * len(size)),
                "dilations": (dilation,) * len(size),
                "group": group,
            }
            forward = _typed("Conv", (x, w), attributes)
            y = forward.output(0).shape
            yield forward
            yield _typed("coexec::ConvInputGrad", (y, w), attributes | {"input_shape": x})
            yield _typed("coexec::ConvWeightGrad", (x, y), attributes | {"kernel_shape": w[2:]})


def _typed(
    identifier: str, shapes: tuple[tuple[int, ...], ...], attributes: dict[str, object]
) -> OpCall:
    op = OPERATORS[identifier]
    inputs = tuple(TensorType(shape, np.dtype(np.float32)) for shape in shapes)
    return op.typed(OpCall(op.op_type, inputs, attributes, domain=op.domain, version=VERSION))
