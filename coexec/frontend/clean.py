"""Leaves only what computes: no identities, no dead nodes, constants as marked initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from coexec.frontend.rewrite import replace_value, unique_names
from coexec.frontend.seeds import give_seeds
from coexec.ops.node import CONSTANT_MARK


def clean(model: ir.Model) -> None:
    """Drop identities and dead nodes, lift constants, give unique names and seeds; in place."""
    drop_identities(model.graph)
    common.RemoveUnusedNodesPass()(model)
    lift_constants(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    unique_names(model.graph)
    give_seeds(model.graph)


def drop_identities(graph: ir.Graph) -> None:
    """Let readers of an ``Identity`` read its operand.

    It stays where a graph output copies a graph input, an initializer or another output.
    """
    for node in graph:
        if node.op_type != "Identity" or node.domain != "" or node.inputs[0] is None:
            continue
        source, result = node.inputs[0], node.outputs[0]
        movable = source.producer() is not None and not source.is_graph_output()
        if movable or not result.is_graph_output():
            replace_value(result, source, node)
            graph.remove(node, safe=True)


def lift_constants(model: ir.Model) -> None:
    """``Constant`` nodes become initializers, marked as constants."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "Constant" and node.domain == "":
            node.outputs[0].metadata_props[CONSTANT_MARK] = "1"
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
