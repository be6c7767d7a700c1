"""Operators that ONNX Runtime's optimiser makes of several standard ones, as these again.

So are those that it had before ONNX. Forms and defaults are those of its docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, flag, kept, operand, required
from coexec.frontend.rewrite import Emitter

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""What may be fused behind a convolution or a product, and what its parameters are called."""

CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def number(emit: Emitter, value: float, like: ir.Value) -> ir.Value:
    """A number in the element type of ``like``."""
    return emit.op("CastLike", [emit.constant(value, np.float32), like])


def activated(node: ir.Node, emit: Emitter, y: ir.Value, parameters: list[float]) -> Results:
    """``y`` behind the activation that attribute ``activation`` names, if any."""
    attribute = node.attributes.get("activation")
    name = "" if attribute is None else attribute.as_string()
    if not name:
        return (y,)
    names = ACTIVATIONS.get(name)
    if names is None or len(parameters) > len(names):
        return NOT_COVERED
    if name == "Clip":
        return (emit.op("Clip", [y, *(number(emit, value, y) for value in parameters)]),)
    given = zip(names, parameters, strict=False)
    return (emit.op(name, [y], {key: ir.AttrFloat32(key, value) for key, value in given}),)


def conv(node: ir.Node, emit: Emitter) -> Results:
    """FusedConv: a convolution, the sum with a tensor like the result, an activation."""
    x, w, bias, other = (operand(node, index) for index in range(4))
    y = emit.op("Conv", [x, w, bias], kept(node, *CONV))
    if other is not None:
        y = emit.op("Add", [y, other])
    given = node.attributes.get("activation_params")
    return activated(node, emit, y, [] if given is None else list(given.as_floats()))


def gemm(node: ir.Node, emit: Emitter) -> Results:
    """FusedGemm: a Gemm and an activation."""
    operands = [required(node, 0), required(node, 1), operand(node, 2)]
    y = emit.op("Gemm", operands, kept(node, "alpha", "beta", "transA", "transB"))
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    given = [node.attributes[name].as_float() for name in names if name in node.attributes]
    return activated(node, emit, y, given)


def matmul(node: ir.Node, emit: Emitter) -> Results:
    """FusedMatMul: alpha times the product, of which either matrix may be transposed."""
    if flag(node, "transBatchA") or flag(node, "transBatchB"):
        return NOT_COVERED
    a, b = required(node, 0), required(node, 1)
    operands = [a, b]
    for index, name in enumerate(("transA", "transB")):
        if flag(node, name):
            swapped = _swapped(emit, operands[index])
            if swapped is None:
                return NOT_COVERED
            operands[index] = swapped
    y = emit.op("MatMul", operands)
    alpha = node.attributes.get("alpha")
    if alpha is None or alpha.as_float() == 1.0:
        return (y,)
    return (emit.op("Mul", [y, number(emit, alpha.as_float(), a)]),)


def _swapped(emit: Emitter, value: ir.Value) -> ir.Value | None:
    """With the last two axes exchanged; ``None`` where it is not known how many there are."""
    if value.shape is None:
        return None
    axes = list(range(value.shape.rank()))
    if len(axes) < 2:
        return value
    axes[-2:] = axes[-1], axes[-2]
    return emit.op("Transpose", [value], {"perm": axes})


def gelu(approximate: str) -> Rewrite:
    """Gelu, BiasGelu and FastGelu: of a tensor, or of its sum with a bias."""

    def rewrite(node: ir.Node, emit: Emitter) -> Results:
        x, bias = required(node, 0), operand(node, 1)
        whole = x if bias is None else emit.op("Add", [x, bias])
        return (emit.op("Gelu", [whole], {"approximate": approximate}),)

    return rewrite


def quick_gelu(node: ir.Node, emit: Emitter) -> Results:
    """QuickGelu: x * sigmoid(alpha x)."""
    x, alpha = required(node, 0), node.attributes.get("alpha")
    scale = number(emit, 1.702 if alpha is None else alpha.as_float(), x)
    return (emit.op("Mul", [x, emit.op("Sigmoid", [emit.op("Mul", [x, scale])])]),)


def skip_layer_normalization(node: ir.Node, emit: Emitter) -> Results:
    """SkipLayerNormalization of x + skip + bias, which is the fourth result."""
    whole = _skipped(node, emit, 4)
    operands = [whole, required(node, 2), operand(node, 3)]
    return (emit.op("LayerNormalization", operands, _norm(node, 1e-12)), None, None, whole)


def skip_simplified_normalization(node: ir.Node, emit: Emitter) -> Results:
    """SkipSimplifiedLayerNormalization of x + skip + bias, which is the fourth result."""
    whole = _skipped(node, emit, 3)
    y = _root_mean_square(emit, whole, required(node, 2), _norm(node, 1e-12))
    return (y, None, None, whole)


def simplified_normalization(node: ir.Node, emit: Emitter) -> Results:
    """SimplifiedLayerNormalization, from before ONNX had RMSNormalization."""
    attributes = {**_norm(node, 1e-5), **kept(node, "axis")}
    return (_root_mean_square(emit, required(node, 0), required(node, 1), attributes),)


def _skipped(node: ir.Node, emit: Emitter, bias: int) -> ir.Value:
    whole = emit.op("Add", [required(node, 0), required(node, 1)])
    added = operand(node, bias)
    return whole if added is None else emit.op("Add", [whole, added])


def _norm(node: ir.Node, epsilon: float) -> dict[str, ir.Attr]:
    given = node.attributes.get("epsilon")
    value = epsilon if given is None else given.as_float()
    return {"axis": ir.AttrInt64("axis", -1), "epsilon": ir.AttrFloat32("epsilon", value)}


def _root_mean_square(
    emit: Emitter, x: ir.Value, scale: ir.Value, attributes: Mapping[str, ir.Attr]
) -> ir.Value:
    newer = Emitter(emit.node, RMS_OPSET)
    return newer.op("RMSNormalization", [x, scale], attributes)


def later(op_type: str, opset: int) -> Rewrite:
    """An operator that ONNX has had from an opset on, in the same form."""

    def rewrite(node: ir.Node, emit: Emitter) -> Results:
        attributes = dict(node.attributes)
        return (Emitter(emit.node, opset).op(op_type, list(node.inputs), attributes),)

    return rewrite


RMS_OPSET = 23
"""The first with RMSNormalization."""

OF_ONNX: Mapping[str, Rewrite] = {"SimplifiedLayerNormalization": simplified_normalization}
"""ONNX Runtime has this one in ONNX's own domain."""

OF_ONNX_RUNTIME: Mapping[str, Rewrite] = {
    "BiasGelu": gelu("none"),
    "FastGelu": gelu("tanh"),
    "FusedConv": conv,
    "FusedGemm": gemm,
    "FusedMatMul": matmul,
    "Gelu": gelu("none"),
    "GridSample": later("GridSample", 16),
    "Pad": later("Pad", 13),
    "QuickGelu": quick_gelu,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_normalization,
    "TransposeMatMul": matmul,
    "Trilu": later("Trilu", 14),
}
"""By name, in ``com.microsoft``."""
