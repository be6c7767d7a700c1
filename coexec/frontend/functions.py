"""Function calls replaced by their bodies: the model's own functions, and ONNX's.

An operator that coexec has no OpDef for, but whose ONNX schema defines it through other
operators, is expanded from that definition, so new functions of ONNX work on the day they appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from coexec.base.errors import ModelError
from coexec.frontend.elements import propagate_elements
from coexec.frontend.modernise import modernise
from coexec.frontend.rewrite import default_name, stamp_versions
from coexec.frontend.schema import has_body, label, schema_of
from coexec.frontend.tensors import all_nodes
from coexec.ops.node import version_of
from coexec.ops.table import OPERATORS

MAX_NODES = 1_000_000
"""A model that grows beyond this by inlining is hostile: calls can double at every level."""

MAX_ROUNDS = 20
"""Depth of ONNX functions that are defined through other ONNX functions (2 today)."""


def inline_functions(model: ir.Model) -> None:
    """Replace calls of the model's own functions by their bodies, in place.

    ``ModelError`` on recursion.
    """
    _check_growth(model)
    _inline(model)


def expand_definitions(model: ir.Model) -> None:
    """Replace modern operators that only ONNX's definition can stand for, in place.

    What cannot be expanded is left for ``check_supported`` to report.
    """
    for _ in range(MAX_ROUNDS):
        functions = _schema_functions(model)
        if not functions:
            return
        model.functions.update(functions)
        _inline(model)
        modernise(model)
    raise ModelError("operator definitions are nested without end")


def _inline(model: ir.Model) -> None:
    """Bodies of any opset version can be mixed: every node carries the version it is meant in."""
    for function in model.functions.values():
        stamp_versions(function)
        for domain in function.opset_imports:
            model.opset_imports.setdefault(domain, function.opset_imports[domain])
            function.opset_imports[domain] = model.opset_imports[domain]
    for node in all_nodes(model):
        node.name = node.name or default_name(node)  # the pass would call it "node"
        called = model.functions.get(node.op_identifier())
        if called is not None and len(node.outputs) < len(called.outputs):
            node.resize_outputs(len(called.outputs))  # the pass wants all, read or not
    common.InlinePass()(model)
    model.functions.clear()


def _check_growth(model: ir.Model) -> None:
    """``ModelError`` if functions call one another in a circle or the result would be huge."""
    sizes: dict[ir.OperatorIdentifier, int] = {}
    active: set[ir.OperatorIdentifier] = set()

    def size(graph: ir.Graph | ir.Function) -> int:
        return sum(called(node) for node in ir.traversal.RecursiveGraphIterator(graph))

    def called(node: ir.Node) -> int:
        key = node.op_identifier()
        if key not in model.functions:
            return 1
        if key in active:
            raise ModelError(f"function {key[0]}::{key[1]} calls itself ({label(node)})")
        if key not in sizes:
            active.add(key)
            sizes[key] = size(model.functions[key])
            active.remove(key)
        return sizes[key]

    total = size(model.graph)
    if total > MAX_NODES:
        raise ModelError(f"inlining its functions would make {total} nodes of the model")


def _schema_functions(model: ir.Model) -> dict[ir.OperatorIdentifier, ir.Function]:
    """Bodies for the operators without an OpDef; each call gets an overload of its own."""
    unknown = [node for node in _nodes(model) if needs_body(node)]
    if unknown:
        propagate_elements(_nodes(model))
    functions = {}
    for number, node in enumerate(unknown):
        proto = schema_body(node)
        if proto is None:
            continue
        node.overload = f"body{number}"
        function = ir.serde.deserialize_function(proto)
        function.domain, function.name, function.overload = node.op_identifier()
        functions[function.identifier()] = function
    return functions


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def needs_body(node: ir.Node) -> bool:
    """No OpDef has this operator, but ONNX defines it through others."""
    identifier = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    schema = None if identifier in OPERATORS else schema_of(node)
    return schema is not None and has_body(schema)


def schema_body(node: ir.Node) -> onnx.FunctionProto | None:
    """The function body ONNX gives for this call; ``None`` where types it needs are not known."""
    schema: Any = schema_of(node)  # onnx's type stubs omit the members for functions
    version = version_of(node)
    if schema is None or takes_graph(node):
        return None
    if schema.has_function:
        written = max((v for v in schema.function_opset_versions if v <= version), default=None)
        if written is not None:
            return _parsed(schema.get_function_with_opset_version(written), node, written)
    if not schema.has_context_dependent_function:
        return None
    return _context_body(schema, node, version)


def takes_graph(node: ir.Node) -> bool:
    """Bodies with a graph as a parameter cannot be inlined."""
    kinds = {attribute.type for attribute in node.attributes.values()}
    return bool(kinds & {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def _context_body(schema: Any, node: ir.Node, version: int) -> onnx.FunctionProto | None:
    """A body that depends on attributes, on which operands are present and on their types."""
    versions = schema.context_dependent_function_opset_versions
    written = max((v for v in versions if v <= version), default=None)
    types = [_type_proto(value) for value in node.inputs]
    if written is None or any(kind is None for kind in types):
        return None
    data = schema.get_context_dependent_function_with_opset_version(
        written,
        ir.serde.serialize_node(node).SerializeToString(),
        [kind.SerializeToString() for kind in types if kind is not None],
    )
    return _parsed(data, node, written)


def _type_proto(value: ir.Value | None) -> onnx.TypeProto | None:
    """ONNX's builders take an empty type for an absent operand."""
    proto = onnx.TypeProto()
    if value is None:
        return proto
    if value.type is None:
        return None
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _parsed(data: bytes, node: ir.Node, version: int) -> onnx.FunctionProto | None:
    """The body, with the opset it is written in and the attributes' defaults."""
    if not data:
        return None
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    if not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("", version))
    _define_outputs(proto)
    schema = schema_of(node)
    declared = {attribute.name for attribute in proto.attribute_proto}
    for name, attribute in (schema.attributes if schema is not None else {}).items():
        if attribute.default_value.name and name not in declared:
            proto.attribute_proto.append(attribute.default_value)
            if name in proto.attribute:
                proto.attribute.remove(name)
    return proto


def _define_outputs(proto: onnx.FunctionProto) -> None:
    """Bodies leave out what the call does not ask for; an unread constant stands in for it."""
    defined = {name for node in proto.node for name in node.output} | set(proto.input)
    for name in proto.output:
        if name not in defined:
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_int=0))
