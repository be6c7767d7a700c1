"""Inception v2, also called BN-Inception.

Source: Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing
internal covariate shift", 2015, figure 5; widths of the released weights, which differ from the
figure in 4c and 4d. Convolutions have no bias: the normalisation behind each would take it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import (
    Net,
    batch_norm,
    conv,
    global_pool,
    image_shape,
    linear,
    max_pool,
    relu,
)

AVERAGE, LARGEST = "avg", "max"


@dataclass(frozen=True)
class Module:
    """Output channels of the branches of one Inception module.

    ``single``: a 1 x 1 convolution; ``triple``: 1 x 1, then 3 x 3; ``double``: 1 x 1, then 3 x 3
    twice; ``pooled``: pooling of kind ``pool``, then 1 x 1. A module without ``single`` and
    ``pooled`` halves the image.
    """

    name: str
    single: int
    triple: tuple[int, int]
    double: tuple[int, int]
    pooled: int
    pool: str = AVERAGE

    @property
    def stride(self) -> int:
        return 1 if self.single else 2

    def channels(self, inputs: int) -> int:
        """Output channels for so many input channels."""
        return self.single + self.triple[1] + self.double[1] + (self.pooled or inputs)


MODULES = (
    Module("3a", 64, (64, 64), (64, 96), 32),
    Module("3b", 64, (64, 96), (64, 96), 64),
    Module("3c", 0, (128, 160), (64, 96), 0, LARGEST),
    Module("4a", 224, (64, 96), (96, 128), 128),
    Module("4b", 192, (96, 128), (96, 128), 128),
    Module("4c", 160, (128, 160), (128, 160), 128),
    Module("4d", 96, (128, 192), (160, 192), 128),
    Module("4e", 0, (128, 192), (192, 256), 0, LARGEST),
    Module("5a", 352, (192, 320), (160, 224), 128),
    Module("5b", 352, (192, 320), (192, 224), 128, LARGEST),
)


def inception_v2(
    batch: int | None = None, classes: int = 1000, *, image_size: int | None = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``image_size=None`` leaves height and width symbolic."""
    net = Net("inception_v2", image_shape(batch, 3, image_size), seed=seed)
    h = _conv(net, net.x, "conv1", (3, 64), 7, stride=2)
    h = max_pool(net, h, "pool1", (3, 3), stride=2, ceil=True)
    h = _conv(net, h, "conv2.reduce", (64, 64), 1)
    h = _conv(net, h, "conv2", (64, 192), 3)
    h = max_pool(net, h, "pool2", (3, 3), stride=2, ceil=True)
    channels = 192
    for module in MODULES:
        h = _module(net, h, module, channels)
        channels = module.channels(channels)
    return net.finish(linear(net, global_pool(net, h), "fc", (channels, classes)), classes)


def _module(net: Net, x: ir.Value, module: Module, channels: int) -> ir.Value:
    """Branches side by side, their channels one behind the other."""
    name, stride = f"inception{module.name}", module.stride
    branches = []
    if module.single:
        branches.append(_conv(net, x, f"{name}.single", (channels, module.single), 1))
    reduced, wide = module.triple
    h = _conv(net, x, f"{name}.triple.reduce", (channels, reduced), 1)
    branches.append(_conv(net, h, f"{name}.triple", (reduced, wide), 3, stride=stride))
    reduced, wide = module.double
    h = _conv(net, x, f"{name}.double.reduce", (channels, reduced), 1)
    h = _conv(net, h, f"{name}.double1", (reduced, wide), 3)
    branches.append(_conv(net, h, f"{name}.double2", (wide, wide), 3, stride=stride))
    branches.append(_pooled(net, x, module, channels))
    return net.op("Concat", f"{name}.concat", branches, {"axis": 1})


def _pooled(net: Net, x: ir.Value, module: Module, channels: int) -> ir.Value:
    name = f"inception{module.name}.pool"
    if not module.pooled:
        return max_pool(net, x, name, (3, 3), stride=2, ceil=True)
    if module.pool == LARGEST:
        h = max_pool(net, x, name, (3, 3), stride=1, pad=1)
    else:
        # The released network divides by nine at the border too.
        window = {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
        h = net.op("AveragePool", name, [x], window | {"count_include_pad": 1})
    return _conv(net, h, f"{name}.project", (channels, module.pooled), 1)


def _conv(
    net: Net, x: ir.Value, name: str, channels: tuple[int, int], kernel: int, stride: int = 1
) -> ir.Value:
    """Convolution, normalisation, ReLU; as large as the input, or half as large."""
    h = conv(
        net,
        x,
        f"{name}.conv",
        channels,
        (kernel, kernel),
        stride=stride,
        pad=kernel // 2,
        bias=False,
    )
    return relu(net, batch_norm(net, h, f"{name}.bn", channels[1]), f"{name}.relu")
