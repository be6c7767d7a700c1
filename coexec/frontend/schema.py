"""ONNX's operator schemas as look-ups: arity, attribute kinds, element types of a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import onnx_ir as ir
from onnx import defs

from coexec.base.errors import ModelError
from coexec.core.types import OpCall
from coexec.ops.node import version_of

OLDEST_OPSET = 9
"""Oldest operator forms that ``modernise`` knows."""

SAME_SINCE_1 = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), ("axis",)),
    **dict.fromkeys(("And", "Or", "Xor", "Equal", "Greater", "Less"), ("axis",)),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum", "MatMul", "Gemm"), ()),
    **dict.fromkeys(("AveragePool", "MaxPool", "Constant", "Flatten"), ()),
}
"""Operators whose older forms mean the same where they lack these attributes.

Their schemas changed before opset 9 only by wider types, wider broadcasting (``axis`` aligned
operands in a way that is gone) or optional additions.
"""

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


def has_body(schema: defs.OpSchema) -> bool:
    """Whether ONNX defines the operator through others (onnx's type stubs omit these members)."""
    untyped: Any = schema
    return bool(untyped.has_function or untyped.has_context_dependent_function)


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
            continue
        wanted = str(attribute.type).rpartition(".")[2]
        if found.type.name != wanted:
            raise ModelError(
                f"{label(node)}: attribute {name!r} is {found.type.name} "
                f"where the operator has {wanted}"
            )
    _check_parts(node)


def _check_parts(node: ir.Node) -> None:
    """Split says how many outputs it has; a shape rule would count up to any number."""
    parts = node.attributes.get("num_outputs")
    if node.op_type != "Split" or parts is None or parts.is_ref():
        return
    if parts.as_int() != len(node.outputs):
        raise ModelError(
            f"{label(node)} has {len(node.outputs)} outputs and num_outputs {parts.value}"
        )


def check_age(nodes: Iterable[ir.Node]) -> None:
    """``ModelError`` if an operator is meant in a form that changed before opset 9.

    An older model whose operators are all still the same in opset 9 is as good as one in opset 9.
    """
    changed: dict[str, int] = {}
    for node in nodes:
        version = version_of(node)
        if node.domain == "" and version < OLDEST_OPSET:
            old = find_schema(node.op_type, "", version)
            new = find_schema(node.op_type, "", OLDEST_OPSET)
            same = old is not None and new is not None and old.since_version == new.since_version
            if not same and not _means_the_same(node):
                changed[node.op_type] = version
    if changed:
        raise ModelError(
            f"the model is in opset {min(changed.values())}; coexec reads {OLDEST_OPSET} and "
            f"newer, and these operators changed until then: {', '.join(sorted(changed))} "
            "(onnx.version_converter.convert_version upgrades it)"
        )


def _means_the_same(node: ir.Node) -> bool:
    gone = SAME_SINCE_1.get(node.op_type)
    return gone is not None and not any(name in node.attributes for name in gone)


def name_of(node: ir.Node) -> str:
    """A node's name, or that of the first value it makes where it has none."""
    return node.name or next((v.name for v in node.outputs if v.name), "")


def label(node: ir.Node) -> str:
    """A node for a message."""
    return f"node {name_of(node)!r} ({node.op_type})"


def formal_at(formals: Sequence[Formal], index: int) -> Formal | None:
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
