"""``If`` whose condition is known: the branch taken stands in its place."""

from __future__ import annotations

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.rewrite import graph_of, replace_value
from coexec.frontend.schema import label
from coexec.ops.node import constant_of


def inline_known_branches(model: ir.Model) -> None:
    """Replace every ``If`` with a constant condition, nested ones included, in place."""
    for node in model.graph:  # onnx_ir visits nodes inserted behind the current one
        if is_if(node):
            inline_branch(node)


def is_if(node: ir.Node) -> bool:
    """Whether ``node`` is ONNX's conditional."""
    return node.op_type == "If" and node.domain == ""


def inline_branch(node: ir.Node) -> bool:
    """Put the branch that runs where ``node`` stands; ``False`` if the condition is not known."""
    condition = None if node.inputs[0] is None else constant_of(node.inputs[0])
    if condition is None:
        return False
    if condition.size != 1:
        raise ModelError(f"{label(node)}: its condition has {condition.size} elements, not one")
    name = "then_branch" if bool(condition.reshape(())) else "else_branch"
    branch = node.attributes[name].as_graph()
    if len(branch.outputs) != len(node.outputs):
        raise ModelError(
            f"{label(node)}: {name} gives {len(branch.outputs)} values, "
            f"the node has {len(node.outputs)}"
        )
    _splice(node, branch)
    return True


def _splice(node: ir.Node, branch: ir.Graph) -> None:
    graph, results = graph_of(node), list(branch.outputs)
    move_initializers(branch, graph)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_after(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        if old.name:
            replace_value(old, new, nodes[-1] if nodes else node)
    graph.remove(node, safe=True)


def move_initializers(branch: ir.Graph, graph: ir.Graph) -> None:
    """Make the initializers of a subgraph those of the graph around it, under free names."""
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        number = 1
        while value.name in graph.initializers:
            value.name, number = f"{name}_{number}", number + 1
        graph.register_initializer(value)
