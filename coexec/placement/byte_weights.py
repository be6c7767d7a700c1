"""Weights of 8 bits in the file of a plan, where planning made floats of them.

Planning computes what is constant ahead, so that the weights of a quantised model are floats: four
times its bytes. In a file they are integers behind a DequantizeLinear again where those give the
very same floats; reading the file takes these nodes out, as the plan is one of a graph without.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.ops.node import CONSTANT_MARK, constant_of
from coexec.ops.whole_weights import Exactly, exactly

PACKED = "coexec.packed"
"""Key of the metadata of a node that gives weights as the planned graph has them."""
LEAST = 1024
"""Bytes of weights for which a node and two constants are worth while."""
FLOAT = np.dtype(np.float32)


def pack_weights(graph: ir.Graph) -> int:
    """Put bytes in place of the known weights that are exactly their multiples; in place.

    Returns how many bytes of the file that takes away. Weights that training changes stay.
    """
    saved = 0
    for value in list(graph.initializers.values()):
        array = constant_of(value)
        known = CONSTANT_MARK in value.metadata_props and not value.is_graph_output()
        if array is None or not known or array.dtype != FLOAT or array.nbytes < LEAST:
            continue
        found = exactly(np.ascontiguousarray(array))
        if found is not None:
            _pack(graph, value, found)
            saved += array.nbytes - found.values.nbytes - found.scale.nbytes
    return saved


def _pack(graph: ir.Graph, value: ir.Value, found: Exactly) -> None:
    """A dequantisation whose result has the name of the weights ``value``, in front of all."""
    name = str(value.name)
    del graph.initializers[name]
    operands = []
    # ONNX Runtime takes a zero point that is not there for one number, beside scales of an axis.
    zero = np.zeros(found.scale.shape, found.values.dtype)
    for part, array in (("values", found.values), ("scale", found.scale), ("zero", zero)):
        operand = ir.Value(
            name=f"{name}/{part}",
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=f"{name}/{part}"),
            metadata_props={CONSTANT_MARK: "1"},
        )
        graph.register_initializer(operand)
        operands.append(operand)
    result = ir.Value(name=name, type=value.type, shape=value.shape)
    attributes = [] if found.axis is None else [ir.AttrInt64("axis", found.axis)]
    node = ir.Node("", "DequantizeLinear", operands, attributes, outputs=[result])
    node.name = f"{name}/dequantise"
    node.metadata_props[PACKED] = "1"
    value.replace_all_uses_with(result)
    graph.insert_before(graph[0], node)


def unpack_weights(graph: ir.Graph) -> None:
    """Take out what :func:`pack_weights` put there: weights are floats again, bit for bit.

    Raises:
        ModelError: such a node does not read known bytes and scales.
    """
    for node in [node for node in graph if PACKED in node.metadata_props]:
        known = [None if value is None else constant_of(value) for value in node.inputs]
        values, scale = (*known, None, None)[:2]
        axis = node.attributes.get("axis")
        number = 0 if axis is None else axis.as_int()
        if values is None or scale is None or not _fits(values.shape, scale.shape, number):
            raise ModelError(f"weights {node.name!r} are damaged: no known bytes with their scales")
        spread = [-1 if i == number else 1 for i in range(values.ndim)] if scale.ndim else ()
        floats = values * scale.astype(FLOAT).reshape(spread)
        _put_back(graph, node, np.asarray(floats, FLOAT))


def _fits(values: tuple[int, ...], scale: tuple[int, ...], axis: int) -> bool:
    """Whether scales are one, or one for each entry of an axis."""
    return not scale or (0 <= axis < len(values) and scale == (values[axis],))


def _put_back(graph: ir.Graph, node: ir.Node, floats: np.ndarray) -> None:
    old, operands = node.outputs[0], [value for value in node.inputs if value is not None]
    name, old.name = str(old.name), None
    new = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(floats.shape),
        const_value=ir.Tensor(floats, name=name),
        metadata_props={CONSTANT_MARK: "1"},
    )
    old.replace_all_uses_with(new)
    graph.remove(node, safe=True)
    graph.register_initializer(new)
    for value in dict.fromkeys(operands):
        if not value.uses():
            del graph.initializers[str(value.name)]
