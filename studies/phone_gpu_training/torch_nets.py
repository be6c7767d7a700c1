"""The study's nets in PyTorch, for the CPU baseline (torch is optional)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

SIZES = {"M1": (16, 16), "M2": (16, 16, 16, 16), "M3": (256, 256), "M4": (784, 256, 128, 16)}


STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2: (expansion, channels, blocks, stride of the first block) of each stage."""


def build(name: str) -> nn.Module:
    """A net by name."""
    others = {"LeNet": _lenet, "ResNet-18": _resnet18, "MobileNetV2": _mobilenetv2}
    return others[name]() if name in others else _fully_connected(SIZES[name])


def _fully_connected(sizes: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


class _Residual(nn.Module):
    """A body with a shortcut around it, and what comes after the sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, H', W')."""
        y: Tensor = self.after(self.body(x) + self.shortcut(x))
        return y


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias and its batch normalisation."""
    pad = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)


def _resnet18() -> nn.Module:
    """With the stem for 32 x 32 images."""
    layers: list[nn.Module] = [*_conv(3, 64, 3), nn.ReLU()]
    inputs = 64
    for width in (64, 128, 256, 512):
        for number in range(2):
            stride = 2 if number == 0 and width > 64 else 1
            body = nn.Sequential(
                *_conv(inputs, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)
            )
            same = stride == 1 and inputs == width
            shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, width, 1, stride))
            layers.append(_Residual(body, shortcut, nn.ReLU()))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def _mobilenetv2() -> nn.Module:
    layers: list[nn.Module] = [*_conv(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    for expansion, width, blocks, first_stride in STAGES:
        for number in range(blocks):
            stride = first_stride if number == 0 else 1
            layers.append(_inverted_residual(inputs, width, expansion, stride))
            inputs = width
    layers += [*_conv(inputs, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 10))


def _inverted_residual(inputs: int, width: int, expansion: int, stride: int) -> nn.Module:
    hidden = inputs * expansion
    widen = [*_conv(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
    depthwise = (*_conv(hidden, hidden, 3, stride, hidden), nn.ReLU6())
    body = nn.Sequential(*widen, *depthwise, *_conv(hidden, width, 1))
    if stride == 1 and inputs == width:
        return _Residual(body, nn.Identity(), nn.Identity())
    return body
