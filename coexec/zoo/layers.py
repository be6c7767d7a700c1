"""Layers that know their channels and size: how the larger networks of the zoo are written down.

:class:`Net` names every node and asks for every size; over hundreds of layers that says the same
again and again. Here a map carries its own shape, and layers are named in the order in which they
are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.zoo.builder import Net, batch_norm, conv, dropout, linear, require

LEAKY_SLOPE = 0.1
RELU, RELU6, SILU, HARDSWISH = "relu", "relu6", "silu", "hardswish"
SIGMOID, HARDSIGMOID, GELU, LEAKY, PRELU = "sigmoid", "hardsigmoid", "gelu", "leaky", "prelu"
TANH, CLIP01 = "tanh", "clip01"
NONE = ""
"""No activation."""
_NODES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    RELU: ("Relu", {}),
    HARDSWISH: ("HardSwish", {}),
    SIGMOID: ("Sigmoid", {}),
    HARDSIGMOID: ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    GELU: ("Gelu", {"approximate": "none"}),
    LEAKY: ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    TANH: ("Tanh", {}),
}
_CLIPPED = {RELU6: (0.0, 6.0), CLIP01: (0.0, 1.0)}


@dataclass(frozen=True)
class Map:
    """Channels of an image: a value of shape (batch, channels, height, width)."""

    value: ir.Value
    channels: int
    height: int
    width: int


Kernel = int | tuple[int, int]


class Layers:
    """Layers of a network under construction; ``act`` is what follows a convolution by default."""

    def __init__(
        self, name: str, batch: int | None, shape: tuple[int, int, int], seed: int, act: str = RELU
    ) -> None:
        """``shape`` is that of an image: channels, height, width."""
        require(min(shape) > 0, f"an image of {shape} has no pixels")
        self.net = Net(name, (batch, *shape), seed=seed)
        self.act = act
        self.x = Map(self.net.x, *shape)
        self._counts: Counter[str] = Counter()

    @classmethod
    def behind(cls, net: Net, x: Map, act: str = RELU) -> Layers:
        """Layers of a network whose input is no image, which go on from ``x``."""
        layers = cls.__new__(cls)
        layers.net, layers.act, layers.x, layers._counts = net, act, x, Counter()
        return layers

    def name(self, kind: str) -> str:
        """The next name of a kind: ``conv1``, ``conv2``."""
        self._counts[kind] += 1
        return f"{kind}{self._counts[kind]}"

    def conv(  # noqa: PLR0913 - a convolution has this many settings
        self,
        x: Map,
        out: int,
        kernel: Kernel = 1,
        *,
        stride: int = 1,
        pad: int | tuple[int, int] | None = None,
        groups: int = 1,
        dilation: int = 1,
        norm: bool = True,
        bias: bool | None = None,
        act: str | None = None,
    ) -> Map:
        """A convolution, batch normalisation (``norm``) and activation (``None``: the default).

        Without ``pad`` the size stays but for the stride; without ``norm`` there is a bias.
        """
        taps = _pair(kernel)
        pads = tuple(dilation * (tap - 1) // 2 for tap in taps) if pad is None else _pair(pad)
        name = self.name("conv")
        value = conv(
            self.net,
            x.value,
            name,
            (x.channels, out),
            taps,
            stride=stride,
            pad=pads,
            groups=groups,
            dilation=dilation,
            bias=not norm if bias is None else bias,
        )
        if norm:
            value = batch_norm(self.net, value, f"{name}.norm", out)
        sides = [
            (side + 2 * edge - dilation * (tap - 1) - 1) // stride + 1
            for side, edge, tap in zip((x.height, x.width), pads, taps, strict=True)
        ]
        require(min(sides) > 0, f"{self.net.graph.name}: the image is too small for {name}")
        return self.activate(Map(value, out, *sides), self.act if act is None else act)

    def depthwise(
        self,
        x: Map,
        kernel: int,
        *,
        stride: int = 1,
        act: str | None = None,
        norm: bool = True,
        bias: bool | None = None,
    ) -> Map:
        """A convolution of each channel on its own."""
        groups = x.channels
        return self.conv(
            x, groups, kernel, stride=stride, groups=groups, act=act, norm=norm, bias=bias
        )

    def transposed(
        self, x: Map, out: int, kernel: int = 2, *, norm: bool = False, act: str | None = None
    ) -> Map:
        """A transposed convolution that doubles the size."""
        name, edge = self.name("transposed"), (kernel - 2) // 2
        weight = self.net.normal(f"{name}.weight", (x.channels, out, kernel, kernel), 0.05)
        inputs = [x.value, weight]
        if not norm:
            inputs.append(self.net.filled(f"{name}.bias", (out,)))
        value = self.net.op(
            "ConvTranspose",
            name,
            inputs,
            {"kernel_shape": (kernel, kernel), "strides": (2, 2), "pads": (edge,) * 4},
        )
        if norm:
            value = batch_norm(self.net, value, f"{name}.norm", out)
        found = Map(value, out, 2 * x.height, 2 * x.width)
        return self.activate(found, self.act if act is None else act)

    def norm(self, x: Map) -> Map:
        """Batch normalisation on its own."""
        return replace(x, value=batch_norm(self.net, x.value, self.name("norm"), x.channels))

    def activate(self, x: Map, act: str) -> Map:
        """An activation by name; :data:`NONE` leaves the map as it is."""
        if act == NONE:
            return x
        name = self.name(act)
        if act in _CLIPPED:
            bounds = [
                self.net.constant(f"{name}.{end}", bound, "float32")
                for end, bound in zip(("min", "max"), _CLIPPED[act], strict=True)
            ]
            return replace(x, value=self.net.op("Clip", name, [x.value, *bounds]))
        if act == SILU:
            gate = self.net.op("Sigmoid", f"{name}.sigmoid", [x.value])
            return replace(x, value=self.net.op("Mul", name, [x.value, gate]))
        if act == PRELU:
            slope = self.net.filled(f"{name}.weight", (x.channels, 1, 1), 0.25)
            return replace(x, value=self.net.op("PRelu", name, [x.value, slope]))
        if act not in _NODES:
            raise UsageError(f"no activation {act!r}; known: {', '.join((*_NODES, *_CLIPPED))}")
        op_type, attributes = _NODES[act]
        return replace(x, value=self.net.op(op_type, name, [x.value], attributes))

    def add(self, x: Map, y: Map) -> Map:
        """The sum of two maps of one size (or of one and a single row of channels)."""
        return replace(x, value=self.net.op("Add", self.name("add"), [x.value, y.value]))

    def multiply(self, x: Map, y: Map) -> Map:
        """The product of two maps of one size (or of one and a single row of channels)."""
        return replace(x, value=self.net.op("Mul", self.name("mul"), [x.value, y.value]))

    def concat(self, *maps: Map) -> Map:
        """Channels of all maps, one behind the other."""
        values = [each.value for each in maps]
        value = self.net.op("Concat", self.name("concat"), values, {"axis": 1})
        return replace(maps[0], value=value, channels=sum(each.channels for each in maps))

    def split(self, x: Map, *parts: int) -> list[Map]:
        """Parts of so many channels each."""
        name = self.name("split")
        sizes = self.net.constant(f"{name}.sizes", parts, "int64")
        values = self.net.ops("Split", name, [x.value, sizes], {"axis": 1}, outputs=len(parts))
        return [
            replace(x, value=value, channels=part)
            for value, part in zip(values, parts, strict=True)
        ]

    def pad_channels(self, x: Map, channels: int) -> Map:
        """Zeros behind the channels, up to ``channels`` of them."""
        name = self.name("pad")
        pads = self.net.constant(
            f"{name}.pads", (0, 0, 0, 0, 0, channels - x.channels, 0, 0), "int64"
        )
        value = self.net.op("Pad", name, [x.value, pads])
        return replace(x, value=value, channels=channels)

    def max_pool(
        self, x: Map, kernel: int, stride: int, pad: int = 0, *, ceil: bool = False
    ) -> Map:
        """Max pooling."""
        return self._pool("MaxPool", x, kernel, stride, pad, {"ceil_mode": int(ceil)})

    def average_pool(self, x: Map, kernel: int, stride: int, pad: int = 0) -> Map:
        """Average pooling; the edges count."""
        return self._pool("AveragePool", x, kernel, stride, pad, {"count_include_pad": 1})

    def squeeze(self, x: Map) -> Map:
        """The mean of each channel, of one pixel."""
        value = self.net.op("GlobalAveragePool", self.name("squeeze"), [x.value])
        return Map(value, x.channels, 1, 1)

    def resize(self, x: Map, factor: float, *, linear: bool = False) -> Map:
        """``factor`` times the height and width, by the nearest pixel or between (``linear``)."""
        sides = int(x.height * factor), int(x.width * factor)
        return self._resized(x, sides, linear)

    def resize_to(self, x: Map, like: Map, *, linear: bool = True) -> Map:
        """The height and width of another map."""
        if (x.height, x.width) == (like.height, like.width):
            return x
        return self._resized(x, (like.height, like.width), linear)

    def pixel_shuffle(self, x: Map, factor: int) -> Map:
        """Channels as pixels: ``factor`` times the height and width."""
        value = self.net.op(
            "DepthToSpace", self.name("shuffle"), [x.value], {"blocksize": factor, "mode": "CRD"}
        )
        return Map(value, x.channels // factor**2, factor * x.height, factor * x.width)

    def excite(
        self, x: Map, squeezed: int, *, inner: str = RELU, gate: str = SIGMOID, bias: bool = True
    ) -> Map:
        """Squeeze and excitation: channels weighted by what their means say."""
        few = self.conv(self.squeeze(x), squeezed, norm=not bias, act=inner)
        return self.multiply(x, self.conv(few, x.channels, norm=not bias, act=gate))

    def logits(self, x: Map, classes: int, *, drop: float = 0.0) -> ir.Model:
        """The mean over pixels, a fully connected layer, and the model with it as its output."""
        flat = self.net.op("Flatten", self.name("flatten"), [self.squeeze(x).value], {"axis": 1})
        flat = dropout(self.net, flat, self.name("dropout"), drop)
        return self.net.finish(linear(self.net, flat, "fc", (x.channels, classes)), classes)

    def dense(self, flat: ir.Value, features: tuple[int, int], act: str = NONE) -> ir.Value:
        """A fully connected layer (N, in) -> (N, out)."""
        found = linear(self.net, flat, self.name("fc"), features, rectified=act == RELU)
        return self.activate(Map(found, features[1], 1, 1), act).value

    def finish(self, x: Map) -> ir.Model:
        """The model with a map as its output."""
        return self.net.finish(x.value, x.channels, x.height, x.width)

    def anchors(self, maps: Sequence[Map], each: int) -> ir.Model:
        """The model with all maps as (N, anchors, ``each``): channels of a place side by side."""
        rows, count = [], 0
        shape = self.net.constant("anchors.shape", (0, -1, each), "int64")
        for x in maps:
            name = self.name("places")
            value = self.net.op("Transpose", name, [x.value], {"perm": (0, 2, 3, 1)})
            rows.append(self.net.op("Reshape", f"{name}.rows", [value, shape]))
            count += x.channels * x.height * x.width // each
        found = rows[0] if len(rows) == 1 else self.net.op("Concat", "anchors", rows, {"axis": 1})
        return self.net.finish(found, count, each)

    def _pool(
        self, op_type: str, x: Map, kernel: int, stride: int, pad: int, more: dict[str, int]
    ) -> Map:
        value = self.net.op(
            op_type,
            self.name("pool"),
            [x.value],
            {
                "kernel_shape": (kernel,) * 2,
                "strides": (stride,) * 2,
                "pads": (pad,) * 4,
                **more,
            },
        )
        up = stride - 1 if more.get("ceil_mode") else 0
        sides = [(side + 2 * pad - kernel + up) // stride + 1 for side in (x.height, x.width)]
        return Map(value, x.channels, *sides)

    def _resized(self, x: Map, sides: tuple[int, int], linear: bool) -> Map:
        name = self.name("resize")
        scales = self.net.constant(
            f"{name}.scales", (1, 1, sides[0] / x.height, sides[1] / x.width), "float32"
        )
        attributes = {"mode": "linear" if linear else "nearest"}
        value = self.net.op("Resize", name, [x.value, None, scales], attributes)
        return Map(value, x.channels, *sides)


def _pair(value: Kernel) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, at least one and never more than 10 % below.

    Source: the authors' code of MobileNetV2.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
