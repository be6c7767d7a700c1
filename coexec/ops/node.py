"""Between graph and operator calls: ``ir.Node`` -> ``OpCall``, ``ir.Value`` <-> ``TensorType``.

Only what stands in the graph is read here; nothing is inferred (see ``OpDef.infer`` for that).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType

CONSTANT_MARK = "coexec.constant"
"""Key in ``Value.metadata_props`` of initializers that are constants of the graph, not weights.

Lifted ``Constant`` nodes and values computed from them carry it, in saved files too: training
never touches them, and folding them is always allowed.
"""


PARAMETER_MARK = "coexec.parameter"
"""Key of initializers that are known to be weights, not only taken for them: scalars, too."""


def is_parameter(value: ir.Value) -> bool:
    """Whether an initializer is a weight: floating-point and not marked as a constant."""
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return value.is_initializer() and floating and CONSTANT_MARK not in value.metadata_props


def call_of(node: ir.Node) -> OpCall:
    """The call a node makes, as far as its values' types are known.

    A present input must have a static type (``ValueError`` names it otherwise). Output types are
    filled in when all of them are known; before inference ``outputs`` is empty. Trailing absent
    operands are dropped, absent ones in between are ``None``; ``output_count`` reaches to the last
    output that is present. Initializers and folded values become ``constants``.
    """
    inputs = _strip(list(node.inputs))
    outputs = present_outputs(node)
    constants = {i: constant_of(value) for i, value in enumerate(inputs) if value is not None}
    return OpCall(
        node.op_type,
        tuple(None if value is None else type_of(value) for value in inputs),
        attributes_of(node),
        _output_types(outputs),
        {i: array for i, array in constants.items() if array is not None},
        node.domain,
        version_of(node),
        node.name or "",
        len(outputs),
    )


def present_outputs(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """Outputs up to the last one present; ``None`` where an optional one is absent."""
    return _strip([None if value.name == "" else value for value in node.outputs])


def version_of(node: ir.Node) -> int:
    """Opset version a node is meant in (its own, else its graph's; 0 where neither says)."""
    if node.version is not None:
        return node.version
    return node.graph.opset_imports.get(node.domain, 0) if node.graph is not None else 0


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Attributes as Python values: int, float, str, tuples of those; tensors as NumPy arrays.

    Graphs and types stay onnx_ir objects (no operator of the table has any). A reference to a
    function's attribute is left out: functions are inlined before calls are built.
    """
    return {
        name: attribute_value(attribute)
        for name, attribute in node.attributes.items()
        if not attribute.is_ref()
    }


def attribute_value(attribute: ir.Attr) -> Any:
    """One attribute as a Python value."""
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    if attribute.type == ir.AttributeType.TENSORS:
        return tuple(tensor.numpy() for tensor in attribute.value)
    if isinstance(attribute.value, (list, tuple)):
        return tuple(attribute.value)
    return attribute.value


def type_of(value: ir.Value) -> TensorType:
    """Static type of a value; ``ValueError`` names the value if shape or type is not known."""
    found = known_type(value)
    if found is None:
        raise ValueError(f"the type of {value.name!r} is not static: {value.type} {value.shape}")
    return found


def known_type(value: ir.Value) -> TensorType | None:
    """Static type of a value, or ``None`` while its shape or element type is not known."""
    if value.shape is None or not isinstance(value.type, ir.TensorType):
        return None
    return _static_type(value.shape.dims, value.type.dtype)


@lru_cache(maxsize=4096)
def _static_type(dims: tuple[int | ir.SymbolicDim, ...], element: ir.DataType) -> TensorType | None:
    """A type, or ``None`` if it is not static: a graph has a few, asked for again and again."""
    shape = tuple(dim for dim in dims if isinstance(dim, int))
    if len(shape) < len(dims):
        return None
    try:
        return TensorType(shape, np.dtype(element.numpy()))
    except TypeError:  # UNDEFINED has no NumPy counterpart
        return None


def set_type(value: ir.Value, kind: TensorType) -> None:
    """Write a static type to a value.

    A new type object each time: values of cloned graphs share theirs, so mutating one would
    change the graph it was cloned from.
    """
    value.type = ir.TensorType(ir.DataType.from_numpy(kind.dtype))
    value.shape = ir.Shape(kind.shape)


def constant_of(value: ir.Value) -> Array | None:
    """Value of an initializer or of a ``Constant`` node's output, else ``None``."""
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and producer.domain == "":
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    return None


def _output_types(outputs: tuple[ir.Value | None, ...]) -> tuple[TensorType | None, ...]:
    kinds = [None if value is None else known_type(value) for value in outputs]
    unknown = any(
        value is not None and kind is None for value, kind in zip(outputs, kinds, strict=True)
    )
    return () if unknown else tuple(kinds)


def _strip(values: list[ir.Value | None]) -> tuple[ir.Value | None, ...]:
    """Without the absent values at the end."""
    while values and values[-1] is None:
        values.pop()
    return tuple(values)
