"""Sequences of tensors inside a graph: who makes them is known, so that readers read the tensors.

PyTorch's exporter writes ``chunk``, ``split``, ``unbind`` and lists of tensors so. A sequence that
is an input or an output of the model, or whose positions are computed from data, has no such form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.types import Array, TensorType
from coexec.frontend.rewrite import graph_of, replace_value
from coexec.frontend.schema import label, name_of
from coexec.ops.node import CONSTANT_MARK, set_type, type_of

MAKERS = frozenset(
    ("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence")
)
READERS = frozenset(("ConcatFromSequence", "SequenceAt", "SequenceLength"))

ValueOf = Callable[[ir.Node, int], Array]
"""The value of an operand that decides shapes."""


def is_of_sequences(node: ir.Node) -> bool:
    """Whether ``node`` makes or reads a sequence."""
    return node.domain == "" and node.op_type in MAKERS | READERS


class Sequences:
    """The tensors of each sequence of a graph, in the order in which its nodes are visited."""

    def __init__(self, value_of: ValueOf) -> None:
        self._value_of = value_of
        self._tensors: dict[ir.Value, tuple[ir.Value, ...]] = {}

    def dissolve(self, node: ir.Node) -> bool:
        """Follow one node, whose tensors are typed; ``False`` where its sequence is not known.

        What makes a sequence stays, without readers in the end. What reads one is replaced.

        Raises:
            ModelError: a position that the sequence does not have, or parts that do not fit.
        """
        result = node.outputs[0]
        if result.is_graph_output() and node.op_type in MAKERS:
            return False
        given = self._tensors.get(_operand(node, 0)) if _takes_sequence(node) else ()
        if given is None:
            return False
        if node.op_type in MAKERS:
            self._tensors[result] = self._made(node, given)
        else:
            replace_value(result, self._read(node, given), node)
            graph_of(node).remove(node, safe=True)
        return True

    def _made(self, node: ir.Node, given: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
        if node.op_type == "SplitToSequence":
            return self._split(node)
        if node.op_type == "SequenceInsert":
            end = self._position(node, 2, len(given) + 1, len(given))
            return (*given[:end], _operand(node, 1), *given[end:])
        if node.op_type == "SequenceErase":
            gone = self._position(node, 1, len(given), len(given) - 1)
            return given[:gone] + given[gone + 1 :]
        return tuple(value for value in node.inputs if value is not None)

    def _read(self, node: ir.Node, given: tuple[ir.Value, ...]) -> ir.Value:
        if node.op_type == "SequenceAt":
            return given[self._position(node, 1, len(given), 0)]
        if node.op_type == "SequenceLength":
            return _constant(node, "length", np.array(len(given), np.int64))
        return _joined(node, given)

    def _position(self, node: ir.Node, index: int, count: int, default: int) -> int:
        """The place that an operand names among ``count``, counted from the end if negative."""
        if index >= len(node.inputs) or node.inputs[index] is None:
            return default
        place = int(self._value_of(node, index).reshape(()))
        if not -count <= place < count:
            raise ModelError(f"{label(node)}: position {place} of a sequence with {count} places")
        return place % count

    def _split(self, node: ir.Node) -> tuple[ir.Value, ...]:
        data = _operand(node, 0)
        kind = type_of(data)
        axis = _int(node, "axis", 0)
        if not -kind.rank <= axis < kind.rank:
            raise ModelError(f"{label(node)}: axis {axis} of {kind}")
        axis %= kind.rank
        sizes = self._sizes(node, kind.shape[axis])
        given = len(node.inputs) > 1 and node.inputs[1] is not None
        split = _constant(node, "sizes", np.array(sizes, np.int64))
        nodes = [_node(node, "Split", [data, split], {"axis": axis}, len(sizes))]
        parts = list(nodes[0].outputs)
        before, behind = kind.shape[:axis], kind.shape[axis:][1:]
        for part, size in zip(parts, sizes, strict=True):
            set_type(part, TensorType((*before, size, *behind), kind.dtype))
        if not given and not _int(node, "keepdims", 1):
            axes = _constant(node, "axes", np.array([axis], np.int64))
            nodes += [
                _node(node, "Squeeze", [part, axes], number=i) for i, part in enumerate(parts)
            ]
            parts = [each.outputs[0] for each in nodes[1:]]
            for part in parts:
                set_type(part, TensorType((*before, *behind), kind.dtype))
        # Typed here: nobody reads them yet, and what nobody reads is not visited.
        graph_of(node).insert_after(node, nodes)
        return tuple(parts)

    def _sizes(self, node: ir.Node, length: int) -> list[int]:
        """Lengths of the parts: ones, equal ones with a rest, or those that are given."""
        if len(node.inputs) < 2 or node.inputs[1] is None:
            return [1] * length
        split = self._value_of(node, 1)
        if split.ndim:
            sizes = [int(size) for size in split]
            if sum(sizes) != length or min(sizes, default=0) < 0:
                raise ModelError(f"{label(node)}: parts of {sizes} elements of {length}")
            return sizes
        step = int(split)
        if step < 1:
            raise ModelError(f"{label(node)}: parts of {step} elements")
        return [min(step, length - start) for start in range(0, length, step)]


def _takes_sequence(node: ir.Node) -> bool:
    return node.op_type not in ("SequenceConstruct", "SequenceEmpty", "SplitToSequence")


def _joined(node: ir.Node, tensors: Sequence[ir.Value]) -> ir.Value:
    """All tensors along one axis, which is a new one with ``new_axis``."""
    if not tensors:
        raise ModelError(f"{label(node)}: an empty sequence has nothing to join")
    axis = _int(node, "axis", 0)
    nodes: list[ir.Node] = []
    if _int(node, "new_axis", 0):
        axes = _constant(node, "axes", np.array([axis], np.int64))
        nodes = [_node(node, "Unsqueeze", [each, axes], number=i) for i, each in enumerate(tensors)]
        tensors = [each.outputs[0] for each in nodes]
    nodes.append(_node(node, "Concat", tensors, {"axis": axis}))
    graph_of(node).insert_after(node, nodes)
    return nodes[-1].outputs[0]


def _operand(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise ModelError(f"{label(node)} has no operand {index}")
    return value


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _node(
    origin: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, Any] | None = None,
    outputs: int = 1,
    number: int = 0,
) -> ir.Node:
    """A node that takes over some of the work of ``origin``; ``number`` tells equal ones apart."""
    name = f"{name_of(origin)}/{op_type}{number}"
    return ir.node(
        op_type,
        inputs,
        dict(attributes or {}),
        num_outputs=outputs,
        version=origin.version,
        name=name,
    )


def _constant(node: ir.Node, what: str, array: Array) -> ir.Value:
    name = f"{name_of(node)}/{what}"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    value.shape = ir.Shape(array.shape)
    value.metadata_props[CONSTANT_MARK] = "1"
    graph_of(node).register_initializer(value)
    return value
