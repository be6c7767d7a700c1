"""Every graph output is produced by a node of its own: what lowering relies on.

After folding, an output may be an initializer, an input or another output's value.
``onnx_ir``'s OutputFixPass does the latter two; initializers are why this pass exists.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.node import set_type, type_of


def produce_outputs(graph: ir.Graph) -> None:
    """Put an Identity in front of every output that no node produces or that stands there twice."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is not None and value not in seen:
            seen.add(value)
            continue
        graph.outputs[index] = _identity(graph, value, index, keep_name=value not in seen)
        seen.add(value)


def _identity(graph: ir.Graph, value: ir.Value, index: int, keep_name: bool) -> ir.Value:
    """An Identity of ``value`` that takes over its name, unless that name belongs to an input."""
    name = str(value.name)
    node = ir.node("Identity", [value], name=f"{name}/output{index}")
    output = node.outputs[0]
    set_type(output, type_of(value))
    graph.append(node)
    if keep_name and value.is_initializer() and value not in graph.inputs:
        del graph.initializers[name]
        value.name = f"{name}#value"
        graph.register_initializer(value)
        output.name = name
    else:
        output.name = f"{name}#output{index}"
    return output
