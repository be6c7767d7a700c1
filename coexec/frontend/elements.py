"""Element types of all values, read off the operators' schemas; needs no shapes and no C++."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx_ir as ir
from onnx import defs

from coexec.frontend.schema import Formal, formal_at, schema_of

TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
"""Attributes that name an output's element type where they are given."""

_TENSOR = re.compile(r"tensor\((\w+)\)")


def propagate_elements(nodes: Iterable[ir.Node]) -> None:
    """Fill in the type of every output whose element type follows from the node's operands.

    ``nodes`` come in execution order. Values whose type is already known are left alone; where
    nothing is known (an operator without a schema) the type stays ``None``.
    """
    for node in nodes:
        for index, value in enumerate(node.outputs):
            if value.type is None:
                dtype = _output_element(node, index)
                value.type = None if dtype is None else ir.TensorType(dtype)


def _output_element(node: ir.Node, index: int) -> ir.DataType | None:
    if node.op_type == "Constant" and node.domain == "":
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        return None if tensor is None else tensor.dtype
    if node.op_type == "ConstantOfShape" and node.domain == "":
        attribute = node.attributes.get("value")
        return ir.DataType.FLOAT if attribute is None else attribute.as_tensor().dtype
    schema = schema_of(node)
    formal = formal_at(schema.outputs, index) if schema is not None else None
    if schema is None or formal is None:
        return None
    return _fixed(formal) or _named(node, index) or _shared(node, schema, formal)


def _fixed(formal: Formal) -> ir.DataType | None:
    """The only type the schema allows there."""
    return parse_type(next(iter(formal.types))) if len(formal.types) == 1 else None


def _named(node: ir.Node, index: int) -> ir.DataType | None:
    if index > 0:
        return None
    for name in TYPE_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.type == ir.AttributeType.INT and attribute.value:
            return ir.DataType(attribute.as_int())
    return None


def _shared(node: ir.Node, schema: defs.OpSchema, formal: Formal) -> ir.DataType | None:
    """The type of an operand that the schema says is the same."""
    for index, value in enumerate(node.inputs):
        other = formal_at(schema.inputs, index)
        same = other is not None and other.type_str == formal.type_str
        if same and value is not None and isinstance(value.type, ir.TensorType):
            return value.type.dtype
    return None


def parse_type(text: str) -> ir.DataType | None:
    """``tensor(float)`` -> ``DataType.FLOAT``; ``None`` for sequences and the like."""
    match = _TENSOR.fullmatch(text)
    return ir.DataType[match[1].upper()] if match else None
