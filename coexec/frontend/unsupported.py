"""One table of everything in a model that coexec has no operator for."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnx import defs

from coexec.base.errors import UnsupportedOperators
from coexec.frontend.branches import is_if
from coexec.frontend.functions import takes_graph
from coexec.frontend.loops import is_loop
from coexec.frontend.schema import has_body, schema_of
from coexec.frontend.sequences import is_of_sequences
from coexec.ops.opdef import COEXEC
from coexec.ops.table import OPERATORS

NODES_SHOWN = 5

ONNX_RUNTIME = "com.microsoft"
CLASSICAL = "ai.onnx.ml"
ITS_END = "its body decides when it ends: give it a trip count and a constant condition"
CONTROL_FLOW = {"If": "its condition is computed from data", "Loop": ITS_END, "Scan": "a loop"}


def check_supported(graph: ir.Graph, *, branches: bool = False) -> None:
    """``UnsupportedOperators`` with one table of all of them unless every node has an OpDef.

    An ``If`` passes while its condition may still turn out constant once shapes are bound, and so
    does a loop while its steps may be counted then, or a sequence while its tensors may be known;
    ``branches`` says that they are, and then it is listed too.
    """
    found: dict[str, list[ir.Node]] = {}
    inside = not any(isinstance(v.type, ir.SequenceType) for v in (*graph.inputs, *graph.outputs))
    for node in graph:
        later = is_if(node) or is_loop(node) or (inside and is_of_sequences(node))
        open_yet = later and not branches
        if identifier(node) not in OPERATORS and not open_yet:
            found.setdefault(identifier(node), []).append(node)
    if found:
        raise UnsupportedOperators(table(found.values()))


def identifier(node: ir.Node) -> str:
    """``Conv`` or ``com.microsoft::FusedConv``."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def table(groups: Iterable[list[ir.Node]]) -> str:
    """Plain text: operator, count, nodes, reason; one line an operator."""
    rows = [("operator", "count", "nodes", "reason")]
    rows += [(identifier(g[0]), str(len(g)), _names(g), reason(g[0])) for g in groups]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}"
        for row in rows
    ]
    noun = "operator is" if len(rows) == 2 else "operators are"
    return "\n".join([f"{len(rows) - 1} {noun} not supported:", *lines])


def _names(nodes: list[ir.Node]) -> str:
    shown = ", ".join(node.name or "" for node in nodes[:NODES_SHOWN])
    return f"{shown}, ..." if len(nodes) > NODES_SHOWN else shown


def reason(node: ir.Node) -> str:
    """Why there is no operator for ``node``."""
    if node.domain == "" and node.op_type in CONTROL_FLOW:
        return f"control flow: {CONTROL_FLOW[node.op_type]}"
    if node.domain == CLASSICAL:
        return "classical machine learning (trees, support vectors, ...) is out of scope"
    schema = schema_of(node)
    if schema is None:
        domains = {s.domain for s in defs.get_all_schemas()} | {COEXEC}
        if node.domain == ONNX_RUNTIME:
            return "ONNX Runtime's own: give the model as it was before ONNX Runtime optimised it"
        if node.domain not in domains:
            return f"the domain {node.domain!r} is not ONNX's, and the model brings no function"
        return "ONNX has no operator of this name"
    if is_of_sequences(node):
        return "its sequence is an input or output of the model, or is computed from data"
    if schema.deprecated:
        return f"deprecated since opset {schema.since_version}"
    if has_body(schema) and takes_graph(node):
        return "it takes a graph as an attribute"
    if has_body(schema):
        return "ONNX's function body for it needs element types that the model does not give"
    return "not implemented, and ONNX gives no function body for it"
