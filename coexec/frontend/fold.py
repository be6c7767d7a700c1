"""Computing ahead, by the operators' NumPy references, what does not depend on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.core.types import Array, OpCall, TensorType
from coexec.frontend.rewrite import graph_of
from coexec.frontend.schema import label
from coexec.ops.node import CONSTANT_MARK, call_of, constant_of, is_parameter, present_outputs
from coexec.ops.opdef import OpDef
from coexec.ops.table import opdef

MAX_BYTES = 64 * 2**20
"""Larger results are computed on the device, not stored in the model."""

MAX_FLOP = 10**9
"""About a second of NumPy; more is left to the device."""

SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators that look at the shape of their operand, not at its values."""


class Folder:
    """Decides what is known ahead. ``parameters`` lets results of weights count as known too."""

    def __init__(self, parameters: bool) -> None:
        self.parameters = parameters

    def results(self, node: ir.Node, op: OpDef, call: OpCall) -> dict[ir.Value, Array] | None:
        """Values of a node's outputs if they should be computed now, else ``None``."""
        if not self._eager(node, call):
            return None
        if _generates_weight(node, call):
            return {node.outputs[0]: _filled(call)}
        if not _affordable(op, call):
            return None
        return _evaluate(node, op, call, [_known(value) for value in node.inputs])

    def value(self, value: ir.Value) -> Array | None:
        """Value of ``value`` because a shape hangs on it, from weights too; ``None`` if unknown."""
        found = _known(value)
        if found is not None or value.producer() is None or _reads_unknown(value):
            return found
        return self._computed(value, {})

    def _computed(self, value: ir.Value, seen: dict[ir.Value, Array | None]) -> Array | None:
        """As :meth:`value`; each of what ``value`` is computed from is looked at once."""
        found = _known(value)
        producer = value.producer()
        if found is not None or producer is None:
            return found
        if value in seen:
            return seen[value]
        seen[value] = None
        call = call_of(producer)
        op = opdef(call)
        if op.random or not call.outputs or not _affordable(op, call):
            return None
        operands = [None if v is None else self._computed(v, seen) for v in producer.inputs]
        if any(v is not None and a is None for v, a in zip(producer.inputs, operands, strict=True)):
            return None
        seen |= _evaluate(producer, op, call, operands)
        return seen[value]

    def replace(self, node: ir.Node, results: Mapping[ir.Value, Array]) -> None:
        """Let initializers take the place of a node's outputs; the node goes when all are gone.

        Results are marked as constants, but for weights that an old exporter generated.
        """
        graph = graph_of(node)
        weight = _generates_weight(node, call_of(node))
        for old, array in results.items():
            new = ir.Value(name=None, type=old.type, shape=old.shape)
            name, old.name = old.name, None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name = name
            new.const_value = ir.Tensor(array, name=name)
            if not weight:
                new.metadata_props[CONSTANT_MARK] = "1"
            graph.register_initializer(new)
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)

    def _eager(self, node: ir.Node, call: OpCall) -> bool:
        """Whether a node should be computed ahead though no shape asks for it."""
        if opdef(call).random:
            return False
        if node.op_type in SHAPE_ONLY:
            return True
        present = [value for value in node.inputs if value is not None]
        return all(
            _known(value) is not None and (self.parameters or not is_parameter(value))
            for value in present
        )


def _known(value: ir.Value | None) -> Array | None:
    return None if value is None else constant_of(value)


def _reads_unknown(value: ir.Value) -> bool:
    """Whether ``value`` is computed from anything that is neither computed nor known."""
    seen, stack = {value}, [value]
    while stack:
        current = stack.pop()
        producer = current.producer()
        if producer is None and _known(current) is None:
            return True
        if producer is not None and _known(current) is None:
            new = [v for v in producer.inputs if v is not None and v not in seen]
            seen.update(new)
            stack += new
    return False


def _generates_weight(node: ir.Node, call: OpCall) -> bool:
    """Old exporters wrote weights this way, as the ``light_*`` models of the onnx package do.

    Their shape is an initializer of the file. Where it was computed, or is a ``Constant``, the
    result is none: PyTorch's exporter writes initial states of recurrent layers and masks so.
    """
    if call.op_type != "ConstantOfShape" or call.domain or not call.outputs:
        return False
    shape = node.inputs[0]
    given = shape is not None and shape.is_initializer()
    marked = shape is not None and CONSTANT_MARK in shape.metadata_props
    return given and not marked and call.output(0).dtype.kind == "f"


def _filled(call: OpCall) -> Array:
    """Of any size and yet without memory: every element is the same one."""
    value = np.asarray(call.attribute("value", np.zeros(1, np.float32)))
    return np.broadcast_to(value.reshape(()), call.output(0).shape)


def _affordable(op: OpDef, call: OpCall) -> bool:
    kinds = [kind for kind in (*call.outputs, *call.inputs) if kind is not None]
    shape_only = call.op_type in SHAPE_ONLY and call.domain == ""
    if shape_only:
        return True
    return max((k.nbytes for k in kinds), default=0) <= MAX_BYTES and op.work(call).flop <= MAX_FLOP


def _evaluate(
    node: ir.Node, op: OpDef, call: OpCall, operands: Sequence[Array | None]
) -> dict[ir.Value, Array]:
    """Present outputs computed by the reference; ``ModelError`` if their values make no sense."""
    if call.op_type in SHAPE_ONLY and call.domain == "":
        operands = [_stand_in(call.input(0))]
    try:
        with np.errstate(all="ignore"):
            arrays = op.reference(call, list(operands))
    except Exception as error:  # e.g. an index out of range: only running it can tell
        raise ModelError(f"{label(node)} cannot be computed: {error}") from error
    outputs = present_outputs(node)
    return {
        value: np.ascontiguousarray(array).reshape(kind.shape).astype(kind.dtype, copy=False)
        for value, array, kind in zip(outputs, arrays, call.outputs, strict=False)
        if value is not None and kind is not None
    }


def _stand_in(kind: TensorType) -> Array:
    """An array of this type that takes no memory."""
    return np.broadcast_to(np.zeros((), kind.dtype), kind.shape)
