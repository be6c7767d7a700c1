"""Single operators in PyTorch, gradients by the functions that its own autograd calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f

from bench.operands import draw

aten = torch.ops.aten
Tensors = Mapping[str, Tensor]
Call = Callable[[], Sequence[Tensor]]
"""One call of the operator; everything that need not be repeated was done before."""


def _linear(t: Tensors, spec: Mapping[str, Any]) -> Call:
    return lambda: (f.linear(t["x"], t["w"]),)


def _conv(t: Tensors, spec: Mapping[str, Any]) -> Call:
    geometry = (spec["strides"], spec["pads"], spec["dilations"])
    functions = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
    function = functions[len(spec["kernel"])]
    return lambda: (function(t["x"], t["w"], None, *geometry, spec["groups"]),)


def _conv_back(wanted: tuple[bool, bool, bool]) -> Callable[[Tensors, Mapping[str, Any]], Call]:
    """Only the gradient that is asked for; the other operand gives its shape alone."""

    def prepare(t: Tensors, spec: Mapping[str, Any]) -> Call:
        rank = len(spec["kernel"])
        x = t["x"] if "x" in t else torch.empty(spec["in_shape"])
        w = t["w"] if "w" in t else torch.empty(spec["weight_shape"])
        geometry = (spec["strides"], spec["pads"], spec["dilations"], False, [0] * rank)
        picked = wanted.index(True)

        def call() -> Sequence[Tensor]:
            results = aten.convolution_backward(
                t["dy"], x, w, None, *geometry, spec["groups"], list(wanted)
            )
            return (results[picked],)

        return call

    return prepare


def _batch_norm(t: Tensors, spec: Mapping[str, Any]) -> Call:
    mean, variance = t["mean"].clone(), t["variance"].clone()
    return lambda: (f.batch_norm(t["x"], mean, variance, t["scale"], t["bias"], True, 0.1, 1e-5),)


def _batch_norm_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    zeros, ones = torch.zeros_like(t["scale"]), torch.ones_like(t["scale"])
    _, mean, inverse = aten.native_batch_norm(
        t["x"], t["scale"], zeros, zeros, ones, True, 0.1, 1e-5
    )
    running = torch.zeros_like(zeros), torch.ones_like(ones)
    saved = (*running, mean, inverse, True, 1e-5, [True, True, True])
    return lambda: aten.native_batch_norm_backward(t["dy"], t["x"], t["scale"], *saved)


def _layer_norm(t: Tensors, spec: Mapping[str, Any]) -> Call:
    shape = t["scale"].shape
    return lambda: (f.layer_norm(t["x"], shape, t["scale"], t["bias"], 1e-5),)


def _layer_norm_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    shape, zeros = t["scale"].shape, torch.zeros_like(t["scale"])
    _, mean, inverse = aten.native_layer_norm(t["x"], shape, t["scale"], zeros, 1e-5)
    saved = (shape, mean, inverse, t["scale"], zeros, [True, True, True])
    return lambda: aten.native_layer_norm_backward(t["dy"], t["x"], *saved)


def _softmax_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    return lambda: (aten._softmax_backward_data(t["dy"], t["y"], -1, torch.float32),)


def _max_pool(t: Tensors, spec: Mapping[str, Any]) -> Call:
    window = spec["kernel"], spec["stride"], spec["pad"]
    return lambda: (f.max_pool2d(t["x"], *window),)


def _max_pool_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    kernel, stride, pad = ([spec[name]] * 2 for name in ("kernel", "stride", "pad"))
    _, indices = aten.max_pool2d_with_indices(t["x"], kernel, stride, pad)
    rest = (kernel, stride, pad, [1, 1], False, indices)
    return lambda: (aten.max_pool2d_with_indices_backward(t["dy"], t["x"], *rest),)


def _average_pool(t: Tensors, spec: Mapping[str, Any]) -> Call:
    window = spec["kernel"], spec["stride"], spec["pad"]
    return lambda: (f.avg_pool2d(t["x"], *window),)


def _average_pool_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    window = [[spec[name]] * 2 for name in ("kernel", "stride", "pad")]
    x = torch.empty(spec["in_shape"])
    return lambda: (aten.avg_pool2d_backward(t["dy"], x, *window, False, True, None),)


def _global_pool_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    """What autograd does for a mean: expand, then divide."""
    shape = spec["in_shape"]
    count = shape[2] * shape[3]
    return lambda: (t["dy"].expand(shape) / count,)


def _chain_back(t: Tensors, spec: Mapping[str, Any]) -> Call:
    def call() -> Sequence[Tensor]:
        passed = aten.threshold_backward(t["dy"], t["y"], 0)
        return passed * t["u"], passed * t["x"]

    return call


def _momentum(t: Tensors, spec: Mapping[str, Any]) -> Call:
    """The fused update, in place: results are those of the first call."""
    x, momentum = t["x"].clone(), t["m"].clone()

    def call() -> Sequence[Tensor]:
        torch._fused_sgd_(
            [x],
            [t["g"]],
            [momentum],
            weight_decay=0.0,
            momentum=0.9,
            lr=0.01,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        return x, momentum

    return call


def _adam(t: Tensors, spec: Mapping[str, Any]) -> Call:
    """The fused update, in place: results are those of the first call."""
    x, first, second = t["x"].clone(), t["m"].clone(), t["s"].clone()
    step = torch.tensor(1.0)

    def call() -> Sequence[Tensor]:
        torch._fused_adam_(
            [x],
            [t["g"]],
            [first],
            [second],
            [],
            [step],
            lr=0.01,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        return x, first, second

    return call


PREPARE: Mapping[str, Callable[[Tensors, Mapping[str, Any]], Call]] = {
    "gemm.plain": lambda t, spec: lambda: (t["a"] @ t["b"],),
    "gemm.linear": _linear,
    "conv.forward": _conv,
    "conv.input_grad": _conv_back((True, False, False)),
    "conv.weight_grad": _conv_back((False, True, False)),
    "batch_norm.forward": _batch_norm,
    "batch_norm.backward": _batch_norm_back,
    "layer_norm.forward": _layer_norm,
    "layer_norm.backward": _layer_norm_back,
    "softmax.forward": lambda t, spec: lambda: (torch.softmax(t["x"], -1),),
    "softmax.backward": _softmax_back,
    "max_pool.forward": _max_pool,
    "max_pool.backward": _max_pool_back,
    "average_pool.forward": _average_pool,
    "average_pool.backward": _average_pool_back,
    "global_pool.forward": lambda t, spec: lambda: (t["x"].mean((2, 3), keepdim=True),),
    "global_pool.backward": _global_pool_back,
    "chain.forward": lambda t, spec: lambda: (torch.relu(t["x"] * t["u"] + t["v"]),),
    "chain.backward": _chain_back,
    "update.momentum": _momentum,
    "update.adam": _adam,
}


class OperatorCall:
    """A case of gemm, conv and memory; ``channels-last`` is for images and volumes."""

    def __init__(self, kind: str, spec: Mapping[str, Any], form: str) -> None:
        tensors = {name: torch.from_numpy(a) for name, a in draw(spec["operands"]).items()}
        if form == "channels-last":
            tensors = {name: _channels_last(t) for name, t in tensors.items()}
        with torch.inference_mode():
            self._call = PREPARE[kind](tensors, spec)
            self._outputs = [result.clone() for result in self._call()]

    def run(self, count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                self._call()

    def outputs(self) -> Sequence[Any]:
        return [result.contiguous().numpy() for result in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {}


def _channels_last(tensor: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.to(memory_format=formats.get(tensor.ndim, torch.contiguous_format))
