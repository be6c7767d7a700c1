"""Where ONNX Runtime computes something else than ONNX says, or stops: such calls are refused.

One difference cannot be told from a call: ``DynamicQuantizeLinear`` of a tensor of zeros has
scale 1 there (any scale is right).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.recurrent_geometry import Recurrence, activations
from coexec.ops.table import OPERATORS

NEED_NUMBERS = frozenset({"affine", "scaledtanh", "thresholdedrelu"})
"""Activations of recurrent layers that ONNX Runtime gives other defaults than ONNX."""

Rule = Callable[[OpCall], str]


def difference(call: OpCall) -> str:
    """What would be different, or nothing."""
    op = OPERATORS.get(call.identifier)
    if op is not None and op.random and _draws(call):
        return "ONNX Runtime draws other random numbers than every processor of coexec"
    rule = RULES.get(call.identifier)
    return rule(call) if rule is not None else ""


def _draws(call: OpCall) -> bool:
    """Dropout outside training draws nothing."""
    if call.op_type != "Dropout":
        return True
    training = call.constant(2)
    return call.has_input(2) and (training is None or bool(training))


def _mod(call: OpCall) -> str:
    floating = "float" in call.input(0).dtype.name and not call.attribute("fmod")
    return "ONNX Runtime takes floating types with fmod=1 only" if floating else ""


def _reduce_prod(call: OpCall) -> str:
    whole = call.input(0).dtype.kind in "iu"
    return "ONNX Runtime's products of integers saturate where ONNX wraps around" if whole else ""


def _conv_transpose(call: OpCall) -> str:
    strides = call.attribute("strides") or (1,) * (call.input(0).rank - 2)
    padding = call.attribute("output_padding") or (0,) * len(strides)
    wide = any(pad >= stride for pad, stride in zip(padding, strides, strict=True))
    return "ONNX Runtime wants output_padding below the stride" if wide else ""


def _attention(call: OpCall) -> str:
    """K is (batch, heads, length, head size) or (batch, length, hidden); 4 is the past's."""
    if not call.has_input(3):
        return ""
    total = call.input(1).shape[-2] + (call.input(4).shape[-2] if call.has_input(4) else 0)
    short = call.input(3).shape[-1] != total
    return "ONNX Runtime wants a mask as long as the keys" if short else ""


def _squeeze(call: OpCall) -> str:
    return "" if call.has_input(1) else "ONNX Runtime's Squeeze wants its axes named"


def _pad(call: OpCall) -> str:
    pads, axes = call.constant(1), call.constant(3)
    if call.attribute("mode", "constant") != "reflect" or pads is None:
        return ""
    chosen = range(call.input(0).rank) if axes is None else [int(axis) for axis in axes.reshape(-1)]
    room = np.array([call.input(0).shape[axis] - 1 for axis in chosen])
    beyond = (pads.reshape(2, -1) > room).any()
    return "ONNX Runtime reflects once only: a pad is longer than what it mirrors" if beyond else ""


def _matmul_integer(call: OpCall) -> str:
    rows = call.has_input(2) and call.input(2).size != 1
    blocks = call.has_input(3) and call.input(3).rank > 1
    several = "ONNX Runtime has one zero point for all rows and for a column of all matrices"
    return several if rows or blocks else ""


def _conv_integer(call: OpCall) -> str:
    channels = call.has_input(3) and call.input(3).size != 1
    return "ONNX Runtime has one zero point for all channels of a ConvInteger" if channels else ""


def _recurrent(call: OpCall) -> str:
    if call.input(0).dtype != np.float32:
        return "ONNX Runtime computes recurrent layers in float32"
    functions = {a.name for each in activations(call, Recurrence.of(call).directions) for a in each}
    bare = functions & NEED_NUMBERS and not call.attribute("activation_alpha")
    return "without alpha, ONNX Runtime's Affine and its like are zero" if bare else ""


def _grid_sample(call: OpCall) -> str:
    axes = call.input(0).rank - 2
    known = axes == 2 or (axes == 3 and call.attribute("mode", "linear") != "cubic")
    return "" if known else "ONNX Runtime samples planes, and volumes but not with cubic weights"


def _dft(call: OpCall) -> str:
    return "" if call.has_input(2) else "ONNX Runtime stops at a DFT that does not name its axis"


def _max_unpool(call: OpCall) -> str:
    return "ONNX Runtime counts indices in output_shape" if call.has_input(2) else ""


def _top_k(call: OpCall) -> str:
    loose = call.attribute("sorted", 1) == 0
    return "with sorted=0 ONNX Runtime has an order of its own" if loose else ""


def _scatter(call: OpCall) -> str:
    """Also for gradients whose function bodies add by scattering."""
    adds = call.domain or call.attribute("reduction", "none") != "none"
    half = call.output(0).dtype == np.float16
    return "ONNX Runtime does not add while scattering in float16" if adds and half else ""


RULES: Mapping[str, Rule] = {
    "Attention": _attention,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "DFT": _dft,
    "GridSample": _grid_sample,
    "MatMulInteger": _matmul_integer,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "MaxUnpool": _max_unpool,
    "Mod": _mod,
    "Pad": _pad,
    "RNN": _recurrent,
    "ReduceProd": _reduce_prod,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Squeeze": _squeeze,
    "TopK": _top_k,
    "coexec::GatherGrad": _scatter,
    "coexec::MaxPoolGrad": _scatter,
}
