"""``Loop`` and ``Scan`` of a known number of steps: their steps stand in their place.

A Loop's number of steps is its trip count, or what its condition makes of it where no data enter
that. A Scan has as many as its operands have elements on the axis that it walks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.types import Array
from coexec.frontend.branches import move_initializers
from coexec.frontend.functions import MAX_NODES
from coexec.frontend.rewrite import graph_of, replace_value
from coexec.frontend.schema import label, name_of
from coexec.ops.node import CONSTANT_MARK, constant_of, type_of

LOOPS = frozenset({"Loop", "Scan"})


def is_loop(node: ir.Node) -> bool:
    """Whether ``node`` is one of ONNX's loops."""
    return node.op_type in LOOPS and node.domain == ""


def conditional(node: ir.Node) -> bool:
    """Whether the body of a ``Loop`` computes when it ends."""
    given, result = _conditions(node.attributes["body"].as_graph())
    return result is not given and constant_of(result) is None


def ends_at_once(node: ir.Node) -> bool:
    """Whether the body of a ``Loop`` says after its first step that this was the last one."""
    given, result = _conditions(node.attributes["body"].as_graph())
    constant = None if result is given else constant_of(result)
    return constant is not None and not np.all(constant)


def unroll_loop(node: ir.Node, trips: int) -> None:
    """Put so many steps of a ``Loop`` where it stands."""
    body = node.attributes["body"].as_graph()
    count = len(node.inputs) - 2
    steps = _Steps(node, body, trips)
    states = list(node.inputs[2:])
    stacks: list[list[ir.Value]] = [[] for _ in body.outputs[1 + count :]]
    for number in range(trips):
        head = [steps.constant(number, "int64"), steps.constant(True, "bool")]
        results = steps.copy([*head, *states])
        states = list(results[1 : 1 + count])
        for stack, value in zip(stacks, results[1 + count :], strict=True):
            stack.append(value)
    stacked = [steps.stacked(stack, 0) for stack in stacks]
    steps.finish([*states, *stacked])


def unroll_scan(node: ir.Node) -> None:
    """Put the steps of a ``Scan`` where it stands; its operands are typed."""
    body = node.attributes["body"].as_graph()
    walked = node.attributes["num_scan_inputs"].as_int()
    count = len(node.inputs) - walked
    scanned = [value for value in node.inputs[count:] if value is not None]
    outputs = len(node.outputs) - count
    if len(scanned) != walked or walked < 1 or outputs < 0:
        raise ModelError(f"{label(node)}: {walked} operands to walk of {len(node.inputs)}")
    axes = _ints(node, "scan_input_axes", walked)
    kinds = [type_of(value) for value in scanned]
    sizes = {kind.shape[axis] for kind, axis in zip(kinds, axes, strict=True)}
    if len(sizes) != 1:
        raise ModelError(f"{label(node)}: its operands have {sorted(sizes)} elements to walk")
    steps = _Steps(node, body, sizes.pop())
    flags = _ints(node, "scan_input_directions", walked)
    rows = [
        steps.parts(value, axis, bool(flag))
        for value, axis, flag in zip(scanned, axes, flags, strict=True)
    ]
    states = list(node.inputs[:count])
    stacks: list[list[ir.Value]] = [[] for _ in range(outputs)]
    for number in range(steps.trips):
        results = steps.copy([*states, *(row[number] for row in rows)])
        states = list(results[:count])
        for stack, value in zip(stacks, results[count:], strict=True):
            stack.append(value)
    axes = _ints(node, "scan_output_axes", outputs)
    flags = _ints(node, "scan_output_directions", outputs)
    ends = zip(stacks, axes, flags, strict=True)
    steps.finish([*states, *(steps.stacked(s[:: -1 if f else 1], axis) for s, axis, f in ends)])


def _ints(node: ir.Node, name: str, count: int) -> list[int]:
    """An attribute with a number for each of ``count`` values; zeros where it is not given."""
    attribute = node.attributes.get(name)
    found = [0] * count if attribute is None else [int(v) for v in attribute.as_ints()]
    if len(found) != count:
        raise ModelError(f"{label(node)}: {name} has {len(found)} entries, expected {count}")
    return found


def _conditions(body: ir.Graph) -> tuple[ir.Value, ir.Value]:
    """The condition that a loop's body is given, and what it gives back behind copies of it."""
    result = body.outputs[0]
    producer = result.producer()
    while producer is not None and producer.op_type == "Identity" and producer.inputs[0]:
        result = producer.inputs[0]
        producer = result.producer()
    return body.inputs[1], result


class _Steps:
    """Copies of a loop's body behind the loop, which they replace in the end."""

    def __init__(self, node: ir.Node, body: ir.Graph, trips: int) -> None:
        self.node, self.body, self.trips = node, body, trips
        self.graph = graph_of(node)
        self.nodes: list[ir.Node] = []
        self.copies = 0
        size = sum(1 for _ in ir.traversal.RecursiveGraphIterator(body))
        if trips * size > MAX_NODES:
            raise ModelError(f"{label(node)}: its {trips} steps would be {trips * size} nodes")
        move_initializers(body, self.graph)

    def constant(self, value: Any, dtype: str) -> ir.Value:
        """A scalar that is known."""
        return self._initializer(np.asarray(value, dtype))

    def _initializer(self, array: Array) -> ir.Value:
        name = self._name(f"constant{len(self.graph.initializers)}")
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape(array.shape)
        value.metadata_props[CONSTANT_MARK] = "1"
        self.graph.register_initializer(value)
        return value

    def _name(self, name: str | None) -> str:
        return f"{name_of(self.node)}/{self.copies}/{name or 'value'}"

    def copy(self, operands: Sequence[ir.Value | None]) -> list[ir.Value]:
        """One more step on ``operands``: what its body gives."""
        if len(operands) != len(self.body.inputs):
            raise ModelError(
                f"{label(self.node)} gives its body {len(operands)} values of "
                f"{len(self.body.inputs)}"
            )
        step = self.body.clone(allow_outer_scope_values=True)
        given = dict(zip(step.inputs, operands, strict=True))
        results = [given.get(value, value) for value in step.outputs]
        step.outputs.clear()
        for inner, outer in given.items():
            if outer is not None:
                inner.replace_all_uses_with(outer)
        for node in ir.traversal.RecursiveGraphIterator(step):  # branches come into this graph, too
            node.name = self._name(node.name)
            for value in node.outputs:
                value.name = self._name(value.name) if value.name != "" else ""
        nodes = list(step)
        step.remove(nodes)
        self.nodes += nodes
        self.copies += 1
        return [value for value in results if value is not None]

    def parts(self, value: ir.Value, axis: int, backwards: bool) -> list[ir.Value]:
        """Elements of ``value`` along an axis, in the order in which they are walked."""
        rank = type_of(value).rank
        attributes = {"axis": axis % rank, "num_outputs": self.trips}
        split = self._node("Split", [value], attributes, self.trips)
        axes = self._initializer(np.array([axis % rank]))
        found = [self._node("Squeeze", [part, axes])[0] for part in split]
        return found[::-1] if backwards else found

    def stacked(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """What each step gave, along a new axis."""
        if not values:
            raise ModelError(f"{label(self.node)}: a loop of no steps gives nothing to stack")
        axes = self._initializer(np.array([axis]))
        rows = [self._node("Unsqueeze", [value, axes])[0] for value in values]
        return self._node("Concat", rows, {"axis": axis})[0]

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        node = ir.node(
            op_type,
            inputs,
            attributes or {},
            num_outputs=outputs,
            version=self.node.version,
            name=self._name(f"{op_type}{len(self.nodes)}"),
        )
        for value in node.outputs:
            value.name = f"{node.name}:{value.index()}"
        self.nodes.append(node)
        return node.outputs

    def finish(self, results: Sequence[ir.Value | None]) -> None:
        """Let the steps' results take the place of the loop's."""
        if len(results) != len(self.node.outputs):
            raise ModelError(
                f"{label(self.node)}: its body gives {len(results)} values, "
                f"the node has {len(self.node.outputs)}"
            )
        self.graph.insert_after(self.node, self.nodes)
        last = self.nodes[-1] if self.nodes else self.node
        for old, new in zip(self.node.outputs, results, strict=True):
            if old.name and new is not None:
                replace_value(old, new, last)
        self.graph.remove(self.node, safe=True)
