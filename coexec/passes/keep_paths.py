"""Inference form of stochastic depth: every path is kept.

Huang et al., "Deep Networks with Stochastic Depth", 2016: in training, samples leave out a layer,
and what is left is divided by the chance p that it stays. PyTorch's libraries write that as
``x * (u < p) / p`` or ``x / p * floor(u + p)`` of a uniform u, which its exporters write as nodes
of their own, unlike Dropout.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from coexec.ops.node import constant_of

UNIFORM = ("RandomUniform", "RandomUniformLike")
CASTS = ("Cast", "CastLike")


def keep_paths(model: ir.Model) -> None:
    """Let each product of a value with such a mask be the value, in place."""
    graph, found = model.graph, False
    for node in list(graph):
        if node.op_type != "Mul" or node.domain:
            continue
        kept = _kept(*node.inputs)
        made = node.outputs[0]
        if kept is None or (kept.shape and made.shape and kept.shape != made.shape):
            continue
        _stand_for(graph, made, kept)
        found = True
    if found:
        RemoveUnusedNodesPass()(model)


def _kept(first: ir.Value | None, second: ir.Value | None) -> ir.Value | None:
    """The operand of a product that is left of it when nothing is left out, if it is such one."""
    for value, mask in ((first, second), (second, first)):
        if value is None or mask is None:
            continue
        divided = _divided(mask)
        if divided is not None and _chance(divided[0]) == divided[1]:
            return value
        divided = _divided(value)
        if divided is not None and _chance(mask) == divided[1]:
            return divided[0]
    return None


def _divided(value: ir.Value) -> tuple[ir.Value, float] | None:
    """Numerator and divisor of a value that was divided by a number."""
    node = _made_by(value, "Div")
    if node is None or node.inputs[0] is None:
        return None
    number = _number(node.inputs[1])
    return None if number is None else (node.inputs[0], number)


def _chance(mask: ir.Value) -> float | None:
    """The chance of a 1 in a mask of zeros and ones, if it is drawn."""
    source = _uncast(mask)
    less = _made_by(source, "Less")
    if less is not None and _is_uniform(less.inputs[0]):
        return _number(less.inputs[1])
    floor = _made_by(source, "Floor")
    total = None if floor is None else _made_by(floor.inputs[0], "Add")
    if total is None:
        return None
    for drawn, chance in (total.inputs, reversed(total.inputs)):
        if _is_uniform(drawn):
            return _number(chance)
    return None


def _is_uniform(value: ir.Value | None) -> bool:
    """Whether numbers are drawn evenly between 0 and 1."""
    node = None if value is None else _uncast(value).producer()
    if node is None or node.domain or node.op_type not in UNIFORM:
        return False
    low, high = (node.attributes.get(name) for name in ("low", "high"))
    return (low is None or low.as_float() == 0) and (high is None or high.as_float() == 1)


def _number(value: ir.Value | None) -> float | None:
    """A constant of one element, rounded to float32, as which the same one may stand elsewhere."""
    array = None if value is None else constant_of(_uncast(value))
    return None if array is None or array.size != 1 else float(np.float32(array.item()))


def _uncast(value: ir.Value) -> ir.Value:
    """What was cast to ``value``."""
    node = value.producer()
    while node is not None and node.op_type in CASTS and not node.domain and node.inputs[0]:
        value = node.inputs[0]
        node = value.producer()
    return value


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is of this kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _stand_for(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` take the place of ``old``, an output of the graph under its own name."""
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    product = old.producer()
    assert product is not None
    copy = ir.node("Identity", [new], name=f"{old.name}/kept")
    graph.insert_before(product, copy)
    old.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
    copy.outputs[0].shape, copy.outputs[0].type = old.shape, old.type
    name, old.name = old.name, None
    copy.outputs[0].name = name
