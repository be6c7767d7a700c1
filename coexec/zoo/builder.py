"""Building plumbing of the zoo: one graph under construction, seeded parameters, common layers.

Float initializers of the graph are its parameters (and running statistics); everything that is
not learned, such as a mask or a target shape, is a ``Constant`` node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod, sqrt
from typing import Any
from zlib import crc32

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

from coexec.base.errors import UsageError
from coexec.core.types import Array

OPSET = 20
"""The first opset with Gelu; IR version 9 belongs to it, so that older tools read the files too."""

IR_VERSION = 9

INPUT = "x"
OUTPUT = "y"


class Net:
    """A graph being built: input ``x``, operators with meaningful names, output ``y`` (logits).

    A parameter's values depend on the seed and its own name alone: adding a layer somewhere does
    not change the others.
    """

    def __init__(
        self,
        name: str,
        shape: Sequence[int | str | None],
        *,
        seed: int,
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> None:
        """``shape`` of the input includes the batch; ``None`` there means the symbolic ``N``."""
        dims = ["N" if d is None else d for d in shape]
        self.batch = dims[0]
        self.seed = seed
        self.x = ir.Value(name=INPUT, shape=ir.Shape(dims), type=ir.TensorType(dtype))
        self.graph = ir.Graph([self.x], [], nodes=[], opset_imports={"": OPSET}, name=name)
        self._tape = tape.Tape(self.graph)
        self._names: set[str] = set()

    def finish(self, logits: ir.Value, *shape: int | str) -> ir.Model:
        """The model with ``logits`` of shape (batch, *shape) as its output ``y``."""
        logits.name = OUTPUT
        logits.shape = ir.Shape([self.batch, *shape])
        logits.type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.outputs.append(logits)
        return ir.Model(self.graph, ir_version=IR_VERSION, producer_name="coexec.zoo")

    def op(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Append a node with one output."""
        output = ir.Value(name=f"{self._unique(name)}.output")
        return self._tape.op(op_type, inputs, attributes, name=name, output=output)

    def ops(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs."""
        self._unique(name)
        values = [ir.Value(name=f"{name}.output{i}") for i in range(outputs)]
        return tuple(
            self._tape.op_multi_out(op_type, inputs, attributes, name=name, outputs=values)
        )

    def constant(self, name: str, values: Any, dtype: str) -> ir.Value:
        """A value that training never touches."""
        tensor = ir.tensor(np.asarray(values, dtype), name=name)
        return self.op("Constant", name, [], {"value": tensor})

    def normal(self, name: str, shape: tuple[int, ...], deviation: float) -> ir.Value:
        """A parameter drawn from a normal distribution."""
        return self._parameter(
            name,
            shape,
            lambda: self._rng(name).standard_normal(shape, np.float32) * np.float32(deviation),
        )

    def uniform(self, name: str, shape: tuple[int, ...], bound: float) -> ir.Value:
        """A parameter drawn uniformly from [-bound, bound)."""
        return self._parameter(name, shape, lambda: self._rng(name).uniform(-bound, bound, shape))

    def filled(self, name: str, shape: tuple[int, ...], value: float = 0.0) -> ir.Value:
        """A parameter with one value everywhere."""
        return self._parameter(name, shape, lambda: np.full(shape, value, np.float32))

    def _parameter(
        self, name: str, shape: tuple[int, ...], values: Callable[[], Array]
    ) -> ir.Value:
        """A float32 initializer; its values are made when they are asked for.

        Who only wants to know layers of a network with a hundred million parameters need not wait
        for their values.
        """
        tensor = ir.LazyTensor(
            lambda: ir.tensor(np.ascontiguousarray(values(), np.float32), name=name),
            ir.DataType.FLOAT,
            ir.Shape(shape),
            cache=True,
            name=self._unique(name),
        )
        return self._tape.initializer(tensor)

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, crc32(name.encode())])

    def _unique(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"{name} stands twice in {self.graph.name}")
        self._names.add(name)
        return name


def conv(  # noqa: PLR0913 - a convolution has this many settings
    net: Net,
    x: ir.Value,
    name: str,
    channels: tuple[int, int],
    kernel: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    pad: int | tuple[int, ...] = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> ir.Value:
    """Convolution (N, in, *spatial) -> (N, out, *spatial), He-initialised for a ReLU behind it.

    ``channels`` is (in, out); the length of ``kernel`` is the number of spatial axes.
    """
    rank = len(kernel)
    weight_shape = (channels[1], channels[0] // groups, *kernel)
    deviation = sqrt(2 / prod(weight_shape[1:]))
    inputs = [x, net.normal(f"{name}.weight", weight_shape, deviation)]
    if bias:
        inputs.append(net.filled(f"{name}.bias", (channels[1],)))
    pads = _spread(pad, rank)
    attributes = {
        "kernel_shape": kernel,
        "strides": _spread(stride, rank),
        "pads": pads + pads,
        "dilations": _spread(dilation, rank),
        "group": groups,
    }
    return net.op("Conv", name, inputs, attributes)


def batch_norm(net: Net, x: ir.Value, name: str, channels: int, *, scale: float = 1.0) -> ir.Value:
    """BatchNormalization over axis 1 in inference form, with fresh running statistics."""
    inputs = [
        x,
        net.filled(f"{name}.weight", (channels,), scale),
        net.filled(f"{name}.bias", (channels,)),
        net.filled(f"{name}.running_mean", (channels,)),
        net.filled(f"{name}.running_var", (channels,), 1.0),
    ]
    return net.op("BatchNormalization", name, inputs, {"epsilon": 1e-5, "momentum": 0.9})


def relu(net: Net, x: ir.Value, name: str) -> ir.Value:
    """max(x, 0)."""
    return net.op("Relu", name, [x])


def linear(
    net: Net, x: ir.Value, name: str, features: tuple[int, int], *, rectified: bool = False
) -> ir.Value:
    """Fully connected layer (N, in) -> (N, out) as Gemm.

    Xavier-initialised, or He-initialised where a ReLU follows (``rectified``).
    """
    bound = sqrt(6 / (features[0] if rectified else sum(features)))
    weight = net.uniform(f"{name}.weight", (features[1], features[0]), bound)
    bias = net.filled(f"{name}.bias", (features[1],))
    return net.op("Gemm", name, [x, weight, bias], {"transB": 1})


def max_pool(
    net: Net,
    x: ir.Value,
    name: str,
    kernel: tuple[int, ...],
    *,
    stride: int | tuple[int, ...],
    pad: int = 0,
    ceil: bool = False,
) -> ir.Value:
    """Max pooling over the spatial axes."""
    return net.op("MaxPool", name, [x], _pool_attributes(kernel, stride, pad, ceil))


def average_pool(
    net: Net, x: ir.Value, name: str, kernel: tuple[int, ...], *, stride: int | tuple[int, ...]
) -> ir.Value:
    """Average pooling over the spatial axes."""
    return net.op("AveragePool", name, [x], _pool_attributes(kernel, stride, 0, False))


def global_pool(net: Net, x: ir.Value) -> ir.Value:
    """(N, C, *spatial) -> (N, C): the mean over all spatial axes."""
    return flatten(net, net.op("GlobalAveragePool", "avgpool", [x]))


def flatten(net: Net, x: ir.Value, name: str = "flatten") -> ir.Value:
    """(N, ...) -> (N, everything else)."""
    return net.op("Flatten", name, [x], {"axis": 1})


def dropout(net: Net, x: ir.Value, name: str, ratio: float) -> ir.Value:
    """Dropout in inference form; nothing at all for ratio 0."""
    if not 0 <= ratio < 1:
        raise UsageError(f"dropout must lie in [0, 1), not {ratio}")
    if ratio == 0:
        return x
    return net.op("Dropout", name, [x, net.constant(f"{name}.ratio", ratio, "float32")])


def image_shape(
    batch: int | None, channels: int, size: int | None
) -> tuple[int | str | None, int, int | str, int | str]:
    """(batch, channels, size, size); without a size the symbolic height ``H`` and width ``W``."""
    return (batch, channels, "H" if size is None else size, "W" if size is None else size)


def require(condition: bool, message: str) -> None:
    """Refuse builder options that make no network.

    Raises:
        UsageError: with ``message``, where ``condition`` does not hold.
    """
    if not condition:
        raise UsageError(message)


def _spread(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else value


def _pool_attributes(
    kernel: tuple[int, ...], stride: int | tuple[int, ...], pad: int, ceil: bool
) -> dict[str, Any]:
    rank = len(kernel)
    return {
        "kernel_shape": kernel,
        "strides": _spread(stride, rank),
        "pads": (pad,) * (2 * rank),
        "ceil_mode": int(ceil),
    }
