"""Reverse-mode differentiation of an ONNX graph: rules emit, this walker adds, reduces and prunes.

Reverse accumulation as in Griewank and Walther, "Evaluating Derivatives", 2nd ed., chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import GradientError
from coexec.core.types import TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.elementwise import is_float
from coexec.ops.node import call_of, type_of
from coexec.ops.opdef import GradientScope
from coexec.ops.table import OPERATORS

QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear")


def gradients(
    graph: ir.Graph,
    target: ir.Value,
    with_respect_to: Sequence[ir.Value],
    builder: GraphBuilder,
) -> dict[ir.Value, ir.Value | None]:
    """Append nodes that compute d target / d value for each value asked for.

    ``target`` is a scalar. Only nodes on a path from the values to the target get gradient nodes.
    A value on which the target does not depend maps to ``None``.

    Raises:
        GradientError: an operator on such a path has no gradient rule (all are listed).
    """
    path = _nodes_between(graph, with_respect_to, target)
    _require_rules(path)
    return _Walker(builder, path, with_respect_to).run(target)


class _Walker:
    """State of one reverse sweep: the gradient contributions that have reached each value."""

    def __init__(
        self, builder: GraphBuilder, path: Sequence[ir.Node], wanted: Sequence[ir.Value]
    ) -> None:
        self.builder = builder
        self.path = path
        self.wanted = wanted
        self.needed = set(wanted) | {value for node in path for value in node.outputs}
        self.contributions: dict[ir.Value, list[ir.Value]] = {}

    def run(self, target: ir.Value) -> dict[ir.Value, ir.Value | None]:
        kind = type_of(target)
        self.contributions[target] = [
            self.builder.constant(np.ones(kind.shape, kind.dtype), kind.dtype)
        ]
        for node in reversed(self.path):
            self._visit(node)
        return {value: self._total(value) for value in self.wanted}

    def _visit(self, node: ir.Node) -> None:
        self.builder.source = node.name or node.op_type
        grads = tuple(self._total(value) for value in node.outputs)
        if all(gradient is None for gradient in grads):
            return
        scope = _NodeScope(self.builder, node, grads, self.needed)
        rule = OPERATORS[scope.call.identifier].gradient
        assert rule is not None  # _require_rules has seen to it
        for value, gradient in zip(node.inputs, rule(scope), strict=False):
            if gradient is not None and value is not None and value in self.needed:
                reduced = _reduce_to(self.builder, gradient, type_of(value))
                self.contributions.setdefault(value, []).append(reduced)

    def _total(self, value: ir.Value) -> ir.Value | None:
        """The sum of all contributions, which then stands for them."""
        parts = self.contributions.get(value, [])
        if len(parts) > 1:
            total = parts[0]
            for part in parts[1:]:
                total = self.builder.op("Add", [total, part])
            self.contributions[value] = parts = [total]
        return parts[0] if parts else None


class _NodeScope(GradientScope):
    """A node as its gradient rule sees it."""

    def __init__(
        self,
        builder: GraphBuilder,
        node: ir.Node,
        grads: tuple[ir.Value | None, ...],
        needed: set[ir.Value],
    ) -> None:
        self.call = call_of(node)
        self.inputs = tuple(node.inputs)
        self.outputs = tuple(node.outputs)
        self.grads = grads
        self.wanted = tuple(value is not None and value in needed for value in node.inputs)
        self._builder = builder

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        return self._builder.op(op_type, inputs, attributes, domain=domain)

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        return self._builder.ops(op_type, inputs, attributes, outputs=outputs, domain=domain)

    def constant(self, value: Any, dtype: np.dtype[Any] | str) -> ir.Value:
        return self._builder.constant(value, dtype)

    def type_of(self, value: ir.Value) -> TensorType:
        return type_of(value)


def _nodes_between(graph: ir.Graph, sources: Iterable[ir.Value], target: ir.Value) -> list[ir.Node]:
    """Nodes that depend on a source and on which the target depends, in graph order.

    Integers end such a path, as indices do, unless they are quantised values.
    """
    forward, quantised = set(sources), set[ir.Value]()
    dependent: list[ir.Node] = []
    for node in graph:
        if any(value in forward for value in node.inputs):
            present = [value for value in node.outputs if value.name != ""]
            floats = {value for value in present if is_float(type_of(value).dtype)}
            if node.op_type in QUANTISING or any(value in quantised for value in node.inputs):
                quantised.update(value for value in present if value not in floats)
            forward.update(floats, quantised.intersection(node.outputs))
            dependent.append(node)
    backward = {target}
    path: list[ir.Node] = []
    for node in reversed(dependent):
        # A boolean or an index may lead on to the target, but nothing flows back through it.
        if any(value in backward and value in forward for value in node.outputs):
            backward.update(value for value in node.inputs if value is not None)
            path.append(node)
    return path[::-1]


def _require_rules(path: Iterable[ir.Node]) -> None:
    missing = []
    for node in path:
        op = OPERATORS[call_of(node).identifier]
        if op.gradient is None:
            reason = op.not_differentiable or "no gradient rule"
            missing.append(f"  {op.identifier} {node.name!r}: {reason}")
    if missing:
        lines = "\n".join(missing)
        raise GradientError(f"the model cannot be differentiated through these nodes:\n{lines}")


def _reduce_to(builder: GraphBuilder, gradient: ir.Value, kind: TensorType) -> ir.Value:
    """Sum a gradient over the axes along which its operand was broadcast."""
    given = type_of(gradient)
    if given.shape == kind.shape:
        return gradient
    lead = given.rank - kind.rank
    axes = [i for i in range(given.rank) if i < lead or kind.shape[i - lead] != given.shape[i]]
    axes_value = builder.constant(np.array(axes, np.int64), "int64")
    total = builder.op("ReduceSum", [gradient, axes_value], {"keepdims": 1})
    if lead == 0:
        return total
    shape = builder.constant(np.array(kind.shape, np.int64), "int64")
    return builder.op("Reshape", [total, shape])
