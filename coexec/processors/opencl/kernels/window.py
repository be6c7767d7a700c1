"""A convolution's geometry with exactly three spatial axes, as kernels take it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from coexec.core.types import OpCall
from coexec.ops.conv_geometry import ConvGeometry
from coexec.processors.opencl.family import DeviceFacts, refuse_types

Triple = tuple[int, int, int]
AXES = 3


@dataclass(frozen=True)
class Window:
    """Forward convolution Y = Conv(X, W) over three axes; missing outer axes have extent 1.

    ``Y[o]`` reads ``X[o * strides - pads + k * dilations]``, zero outside.
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    in_size: Triple
    out_size: Triple
    kernel: Triple
    strides: Triple
    pads: Triple
    dilations: Triple

    @property
    def inner(self) -> int:
        """Input channels of a group."""
        return self.in_channels // self.groups

    @property
    def outer(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def pixels(self) -> int:
        """Spatial positions of Y."""
        return prod(self.out_size)

    @property
    def in_pixels(self) -> int:
        """Spatial positions of X."""
        return prod(self.in_size)

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.inner == 1 and self.groups > 1

    @property
    def pointwise(self) -> bool:
        """Whether X is read exactly where Y is written: a matrix product."""
        return (
            self.taps == 1
            and self.strides == (1, 1, 1)
            and self.pads == (0, 0, 0)
            and self.in_size == self.out_size
        )

    @classmethod
    def of(cls, call: OpCall) -> Window:
        """The window of Conv, ConvTranspose, ConvInputGrad or ConvWeightGrad."""
        g = ConvGeometry.of(call)
        return cls(
            g.batch,
            g.in_channels,
            g.out_channels,
            g.group,
            _three(g.in_size, 1),
            _three(g.out_size, 1),
            _three(g.kernel, 1),
            _three(g.strides, 1),
            _three(g.pads_begin, 0),
            _three(g.dilations, 1),
        )

    def scalars(self) -> tuple[int, ...]:
        """The numbers of the geometry in the order of the kernels' GEOMETRY arguments."""
        return (
            self.batch,
            self.in_channels,
            self.out_channels,
            self.groups,
            *self.in_size,
            *self.out_size,
            *self.kernel,
            *self.strides,
            *self.pads,
            *self.dilations,
        )


def _three(values: tuple[int, ...], fill: int) -> Triple:
    a, b, c = (fill,) * (AXES - len(values)) + tuple(values)
    return a, b, c


def refuse_convolution(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why no kernel here computes this convolution or gradient, else ``None``."""
    rank = ConvGeometry.of(call).rank
    if rank > AXES:
        return f"{rank} spatial axes; kernels have {AXES}"
    return refuse_types((*call.inputs, *call.outputs), facts)
