"""Operands and attributes of nodes that no schema has checked, as rewriting them needs them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.rewrite import Emitter
from coexec.frontend.schema import label

Results = tuple[ir.Value | None, ...]
"""What takes the place of a node's results; ``None`` where that result cannot be given."""

Rewrite = Callable[[ir.Node, Emitter], Results]
"""Makes nodes in front of a node, by the emitter, that compute its results.

No results: the node has a form that is not covered, and stays.
"""

NOT_COVERED: Results = ()


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Operand ``index``, or ``None`` where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def required(node: ir.Node, index: int) -> ir.Value:
    """Operand ``index``; ``ModelError`` where it is absent (no schema has checked these nodes)."""
    value = operand(node, index)
    if value is None:
        raise ModelError(f"{label(node)}: input {index} is missing")
    return value


def kept(node: ir.Node, *names: str) -> dict[str, ir.Attr]:
    """Those of the attributes ``names`` that the node has."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


def flag(node: ir.Node, name: str) -> bool:
    """Whether an integer attribute is given and not 0."""
    attribute = node.attributes.get(name)
    return attribute is not None and attribute.as_int() != 0
