"""Convolutions of known networks: forward, gradient of the input, gradient of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bench.case import KEEP_MEMORY, Case, Suite
from bench.operands import operand

PASSES = ("forward", "input_grad", "weight_grad")
BATCHES = (1, 8, 32)
FLOAT = 4


@dataclass(frozen=True)
class Shape:
    """A convolution without its batch; the same padding, stride and dilation on every axis."""

    name: str
    channels: tuple[int, int]
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    quick: bool = False

    @property
    def pads(self) -> tuple[int, ...]:
        """Half the dilated kernel, on both sides."""
        return tuple((k - 1) * self.dilation // 2 for k in self.kernel)

    @property
    def out_size(self) -> tuple[int, ...]:
        return tuple(
            (n + 2 * p - (k - 1) * self.dilation - 1) // self.stride + 1
            for n, p, k in zip(self.size, self.pads, self.kernel, strict=True)
        )


SHAPES = (
    Shape("ResNet stem 7x7/2 3-64 224", (3, 64), (224, 224), (7, 7), 2),
    Shape("ResNet 3x3 64-64 56", (64, 64), (56, 56), (3, 3), quick=True),
    Shape("ResNet 3x3/2 64-128 56", (64, 128), (56, 56), (3, 3), 2),
    Shape("ResNet 3x3 128-128 28", (128, 128), (28, 28), (3, 3)),
    Shape("ResNet 3x3 256-256 14", (256, 256), (14, 14), (3, 3), quick=True),
    Shape("ResNet 3x3 512-512 7", (512, 512), (7, 7), (3, 3)),
    Shape("ResNet 1x1/2 64-128 56", (64, 128), (56, 56), (1, 1), 2),
    Shape("ResNet 1x1 64-256 56", (64, 256), (56, 56), (1, 1)),
    Shape("ResNet 1x1 256-64 56", (256, 64), (56, 56), (1, 1)),
    Shape("ResNet 1x1 512-128 28", (512, 128), (28, 28), (1, 1), quick=True),
    Shape("ResNet 1x1 1024-256 14", (1024, 256), (14, 14), (1, 1)),
    Shape("ResNet 1x1 2048-512 7", (2048, 512), (7, 7), (1, 1)),
    Shape("VGG 3x3 3-64 32", (3, 64), (32, 32), (3, 3)),
    Shape("VGG 3x3 128-256 56", (128, 256), (56, 56), (3, 3)),
    Shape("VGG 3x3 256-256 8", (256, 256), (8, 8), (3, 3)),
    Shape("VGG 3x3 512-512 14", (512, 512), (14, 14), (3, 3)),
    Shape("MobileNet 1x1 16-96 112", (16, 96), (112, 112), (1, 1)),
    Shape("MobileNet 1x1 192-32 28", (192, 32), (28, 28), (1, 1)),
    Shape("MobileNet 1x1 320-1280 7", (320, 1280), (7, 7), (1, 1)),
    Shape("MobileNet depthwise 3x3 144 56", (144, 144), (56, 56), (3, 3), groups=144, quick=True),
    Shape("MobileNet depthwise 3x3/2 96 112", (96, 96), (112, 112), (3, 3), 2, groups=96),
    Shape("MobileNet depthwise 5x5 240 28", (240, 240), (28, 28), (5, 5), groups=240),
    Shape("1-D 5, dilation 4, 64-64 1024", (64, 64), (1024,), (5,), dilation=4),
    Shape("3-D 3x3x3 16-32 16x32x32", (16, 32), (16, 32, 32), (3, 3, 3)),
)


def case(shape: Shape, batch: int, direction: str) -> Case:
    """``operands`` are two of x, w and dy: those that the direction reads."""
    x = (batch, shape.channels[0], *shape.size)
    w = (shape.channels[1], shape.channels[0] // shape.groups, *shape.kernel)
    dy = (batch, shape.channels[1], *shape.out_size)
    shapes = {"x": x, "w": w, "dy": dy}
    read = {"forward": ("x", "w"), "input_grad": ("dy", "w"), "weight_grad": ("x", "dy")}
    spec = {
        "operands": {name: operand(shapes[name]) for name in read[direction]},
        "in_shape": x,
        "kernel": shape.kernel,
        "weight_shape": w,
        "strides": (shape.stride,) * len(shape.size),
        "pads": shape.pads,
        "dilations": (shape.dilation,) * len(shape.size),
        "groups": shape.groups,
    }
    flop = 2 * prod(dy) * prod(w[1:])
    moved = FLOAT * (prod(x) + prod(w) + prod(dy))
    name = f"{shape.name}, batch {batch}, {direction.replace('_', ' ')}"
    quick = shape.quick and batch == 8
    return Case(name, f"conv.{direction}", spec, direction.replace("_", " "), flop, moved, quick)


SUITE = Suite(
    "conv",
    "Convolutions",
    tuple(case(s, batch, d) for s in SHAPES for batch in BATCHES for d in PASSES),
    turns=4,
    minutes=4.5,
    seconds=0.02,
    pause=0.02,
    environment=KEEP_MEMORY,
    roof="flop",
)
