"""Operators on quantised tensors as dequantisation, the operator on floats, and quantisation.

Covers the operator-oriented format of ONNX Runtime's quantiser: ONNX's own QLinearConv and
QLinearMatMul, and the ``com.microsoft`` operators that ONNX Runtime documents in
docs/ContribOperators.md. The result is what the same quantiser writes in its other format (QDQ).
Results differ by at most one step: they are rounded from float sums instead of integer ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, flag, kept, operand, required
from coexec.frontend.rewrite import Emitter
from coexec.frontend.schema import label

INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)


def dequantised(node: ir.Node, emit: Emitter, first: int, axis: int = 0) -> ir.Value:
    """Operand ``first`` as floats; its scale and zero point are the two operands behind it.

    Scales of rank 1 belong to ``axis``; those of a higher rank are broadcast.
    """
    x, scale, zero = required(node, first), required(node, first + 1), operand(node, first + 2)
    if scale.shape is None or scale.shape.rank() < 2:
        return emit.op("DequantizeLinear", [x, scale, zero], {"axis": axis})
    wide = emit.op("Cast", [x], {"to": ir.DataType.INT32.value})
    if zero is not None:
        wide = emit.op("Sub", [wide, emit.op("Cast", [zero], {"to": ir.DataType.INT32.value})])
    return emit.op("Mul", [emit.op("CastLike", [wide, scale]), scale])


def quantised(node: ir.Node, emit: Emitter, y: ir.Value, scale: int, like: int) -> Results:
    """``y`` as integers of the scale in operand ``scale`` and the zero point behind it.

    Without a zero point they are integers as those of operand ``like``.
    """
    zero = operand(node, scale + 1)
    if zero is not None:
        return (emit.op("QuantizeLinear", [y, required(node, scale), zero]),)
    kind = required(node, like).dtype
    if kind not in INTEGERS:
        raise ModelError(f"{label(node)}: input {like} has no type to quantise to ({kind})")
    attributes = {"output_dtype": kind.value}
    return (emit.op("QuantizeLinear", [y, required(node, scale)], attributes),)


def conv(node: ir.Node, emit: Emitter) -> Results:
    """QLinearConv: x, w, y with scale and zero point each; an int32 bias of scale x * w."""
    if flag(node, "channels_last"):
        return NOT_COVERED
    operands = [dequantised(node, emit, 0), dequantised(node, emit, 3)]
    bias = operand(node, 8)
    if bias is not None:
        scale = emit.op("Mul", [required(node, 1), required(node, 4)])
        operands.append(emit.op("DequantizeLinear", [bias, scale], {"axis": 0}))
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return quantised(node, emit, emit.op("Conv", operands, kept(node, *names)), 6, 0)


def matmul(node: ir.Node, emit: Emitter) -> Results:
    """QLinearMatMul: one scale of a for each row or for all, of b for each column or for all."""
    operands = [dequantised(node, emit, 0, axis=-2), dequantised(node, emit, 3, axis=-1)]
    return quantised(node, emit, emit.op("MatMul", operands), 6, 0)


def gemm(node: ir.Node, emit: Emitter) -> Results:
    """QGemm: an int32 C of scale a * b, multiplied by alpha like the product; floats if asked."""
    scales = required(node, 1), required(node, 4)
    axis = 0 if flag(node, "transB") else 1
    operands = [dequantised(node, emit, 0), dequantised(node, emit, 3, axis)]
    attributes = kept(node, "alpha", "transA", "transB")
    bias = operand(node, 6)
    if bias is not None:
        scale = emit.op("Mul", scales)
        operands.append(emit.op("DequantizeLinear", [bias, scale], {"axis": -1}))
        if "alpha" in attributes:
            attributes["beta"] = ir.AttrFloat32("beta", attributes["alpha"].as_float())
    y = emit.op("Gemm", operands, attributes)
    return (y,) if operand(node, 7) is None else quantised(node, emit, y, 7, 0)


def binary(op_type: str) -> Rewrite:
    """QLinearAdd, QLinearMul: a, b with scale and zero point each, then those of the result."""

    def rewrite(node: ir.Node, emit: Emitter) -> Results:
        operands = [dequantised(node, emit, 0), dequantised(node, emit, 3)]
        return quantised(node, emit, emit.op(op_type, operands), 6, 0)

    return rewrite


def unary(op_type: str, *names: str) -> Rewrite:
    """An operator of one tensor that keeps the attributes ``names``: x, scales of x and of y."""

    def rewrite(node: ir.Node, emit: Emitter) -> Results:
        if flag(node, "channels_last"):
            return NOT_COVERED
        y = emit.op(op_type, [dequantised(node, emit, 0)], kept(node, *names))
        return quantised(node, emit, y, 3, 0)

    return rewrite


def softmax(node: ir.Node, emit: Emitter) -> Results:
    """QLinearSoftmax: attribute ``opset`` says in which of its two meanings."""
    opset = node.attributes.get("opset")
    if opset is None:
        raise ModelError(f"{label(node)}: attribute 'opset' is missing")
    axis = node.attributes.get("axis")
    attributes = {"axis": ir.AttrInt64("axis", -1 if axis is None else axis.as_int())}
    written = Emitter(node, opset.as_int())
    y = written.op("Softmax", [dequantised(node, emit, 0)], attributes)
    return quantised(node, emit, y, 3, 0)


def where(node: ir.Node, emit: Emitter) -> Results:
    """QLinearWhere: a condition, then x, y with scale and zero point each, then those of z."""
    operands = [required(node, 0), dequantised(node, emit, 1), dequantised(node, emit, 4)]
    return quantised(node, emit, emit.op("Where", operands), 7, 1)


def concat(node: ir.Node, emit: Emitter) -> Results:
    """QLinearConcat: scale and zero point of the result, then three operands a tensor."""
    count = len(node.inputs)
    if count < 5 or count % 3 != 2:
        raise ModelError(f"{label(node)} has {count} inputs where three a tensor are needed")
    parts = [dequantised(node, emit, index) for index in range(2, count, 3)]
    return quantised(node, emit, emit.op("Concat", parts, kept(node, "axis")), 0, 2)


def static(op_type: str) -> Rewrite:
    """QuantizeLinear, DequantizeLinear as ONNX Runtime had them before ONNX had their types."""

    def rewrite(node: ir.Node, emit: Emitter) -> Results:
        return (emit.op(op_type, list(node.inputs), kept(node, "axis", "block_size")),)

    return rewrite


def _products(emit: Emitter, operands: Sequence[ir.Value | None]) -> ir.Value:
    """Exact products of integers, as float32."""
    whole = emit.op("MatMulInteger", operands)
    return emit.op("Cast", [whole], {"to": ir.DataType.FLOAT.value})


def matmul_to_float(node: ir.Node, emit: Emitter) -> Results:
    """MatMulIntegerToFloat: a, b, their scales, their zero points, and a float bias."""
    a, b = required(node, 0), required(node, 1)
    scale = emit.op("Mul", [required(node, 2), required(node, 3)])
    whole = _products(emit, [a, b, operand(node, 4), operand(node, 5)])
    return _biased(emit, emit.op("Mul", [whole, scale]), operand(node, 6))


def matmul_dynamic(node: ir.Node, emit: Emitter) -> Results:
    """DynamicQuantizeMatMul: floats a, then b with scale and zero point, and a float bias."""
    a, scale, zero = emit.ops("DynamicQuantizeLinear", [required(node, 0)], 3)
    scales = emit.op("Mul", [scale, required(node, 2)])
    whole = _products(emit, [a, required(node, 1), zero, operand(node, 3)])
    return _biased(emit, emit.op("Mul", [whole, scales]), operand(node, 4))


def _biased(emit: Emitter, y: ir.Value, bias: ir.Value | None) -> Results:
    return (y if bias is None else emit.op("Add", [y, bias]),)


POOLS = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

OF_ONNX: Mapping[str, Rewrite] = {"QLinearConv": conv, "QLinearMatMul": matmul}
"""By name, in ONNX's own domain."""

OF_ONNX_RUNTIME: Mapping[str, Rewrite] = {
    "DequantizeLinear": static("DequantizeLinear"),
    "DynamicQuantizeMatMul": matmul_dynamic,
    "MatMulIntegerToFloat": matmul_to_float,
    "QGemm": gemm,
    "QLinearAdd": binary("Add"),
    "QLinearAveragePool": unary("AveragePool", *POOLS),
    "QLinearConcat": concat,
    "QLinearConv": conv,
    "QLinearGlobalAveragePool": unary("GlobalAveragePool"),
    "QLinearLeakyRelu": unary("LeakyRelu", "alpha"),
    "QLinearMul": binary("Mul"),
    "QLinearSigmoid": unary("Sigmoid"),
    "QLinearSoftmax": softmax,
    "QLinearWhere": where,
    "QuantizeLinear": static("QuantizeLinear"),
}
"""By name, in ``com.microsoft``."""
