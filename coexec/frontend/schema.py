"""ONNX's operator schemas as look-ups: arity, attribute kinds, element types of a node."""

from __future__ import annotations

from functools import cache

import onnx_ir as ir
from onnx import defs

from coexec.base.errors import ModelError
from coexec.core.types import OpCall
from coexec.ops.node import version_of

Formal = defs.OpSchema.FormalParameter


@cache
def find_schema(op_type: str, domain: str, version: int) -> defs.OpSchema | None:
    """The schema in force in an opset version, or ``None`` where ONNX knows no such operator."""
    try:
        return defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None


def schema_of(node: ir.Node) -> defs.OpSchema | None:
    """The schema a node was written against."""
    return find_schema(node.op_type, node.domain, version_of(node))


def check_node(node: ir.Node) -> None:
    """``ModelError`` if operands or attributes are not what the operator's schema asks for.

    Attributes that the schema does not list are tolerated: exporters leave remnants of older
    versions and they have no meaning. Operators without a schema are left to ``unsupported``.
    """
    schema = schema_of(node)
    if schema is None:
        return
    _check_arity(node, len(node.inputs), schema.min_input, schema.max_input, "inputs")
    _check_arity(node, len(node.outputs), schema.min_output, schema.max_output, "outputs")
    for index, value in enumerate(node.inputs):
        formal = formal_at(schema.inputs, index)
        required = defs.OpSchema.FormalParameterOption.Single
        if value is None and formal is not None and formal.option == required:
            raise ModelError(f"{label(node)}: input {index} ({formal.name}) is missing")
    for name, attribute in schema.attributes.items():
        found = node.attributes.get(name)
        if found is None:
            if attribute.required:
                raise ModelError(f"{label(node)}: attribute {name!r} is missing")
        elif found.type.value != attribute.type.value:
            raise ModelError(
                f"{label(node)}: attribute {name!r} is {found.type.name} "
                f"where the operator has {attribute.type.name}"
            )


def label(node: ir.Node) -> str:
    """A node for a message: its name, or the value it makes where it has no name."""
    name = node.name or next((v.name for v in node.outputs if v.name), "")
    return f"node {name!r} ({node.op_type})"


def formal_at(formals: list[Formal], index: int) -> Formal | None:
    """Declaration of operand ``index``; the last one repeats where it is variadic."""
    if index < len(formals):
        return formals[index]
    variadic = defs.OpSchema.FormalParameterOption.Variadic
    return formals[-1] if formals and formals[-1].option == variadic else None


def check_types(call: OpCall) -> None:
    """``ValueError`` if an operand's element type is not allowed, or two that must agree differ.

    NumPy would promote silently where ONNX asks for an explicit Cast.
    """
    schema = find_schema(call.op_type, call.domain, call.version)
    if schema is None:
        return
    bound: dict[str, tuple[int, str]] = {}
    for index, operand in enumerate(call.inputs):
        formal = formal_at(schema.inputs, index)
        if operand is None or formal is None:
            continue
        found = type_string(ir.DataType.from_numpy(operand.dtype))
        if found not in formal.types:
            raise ValueError(f"input {index} ({formal.name}) cannot be {operand.dtype.name}")
        if not formal.is_homogeneous:
            continue
        first, known = bound.setdefault(formal.type_str, (index, found))
        if known != found:
            raise ValueError(
                f"inputs {first} and {index} must have the same element type, "
                f"found {known} and {found}"
            )


def type_string(dtype: ir.DataType) -> str:
    """ONNX's spelling of a tensor type: ``tensor(float)``."""
    return f"tensor({dtype.name.lower()})"


def _check_arity(node: ir.Node, found: int, least: int, most: int, what: str) -> None:
    if not least <= found <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise ModelError(f"{label(node)} has {found} {what} where the operator takes {wanted}")
