"""The nets of the published study (arXiv 2202.10100) and three convolutional ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from coexec.zoo.catalog import build
from coexec.zoo.mlp import mlp

BATCH = 32


def fully_connected(*sizes: int) -> ir.Model:
    """A chain of fully connected layers, ``sizes`` features wide."""
    return mlp(BATCH, sizes[-1], sizes=sizes[:-1])


NETS: Mapping[str, Callable[[], ir.Model]] = {
    "M1": lambda: fully_connected(16, 16),
    "M2": lambda: fully_connected(16, 16, 16, 16),
    "M3": lambda: fully_connected(256, 256),
    "M4": lambda: fully_connected(784, 256, 128, 16),
    "LeNet": lambda: build("lenet5", batch=BATCH),
    "ResNet-18": lambda: build("resnet18", batch=BATCH),
    "MobileNetV2": lambda: build("mobilenetv2", BATCH, 10, image_size=96, dropout_ratio=0.0),
}
"""All with batch 32; M1-M4 as in the study, in float32."""
