"""From graph nodes to operator calls and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coexec.core.types import TensorType
from coexec.ops.node import (
    call_of,
    constant_of,
    known_type,
    present_outputs,
    set_type,
    type_of,
    version_of,
)

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def _value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=FLOAT, shape=ir.Shape(shape))


def test_absent_operands_and_outputs() -> None:
    x, training = _value("x", 2, 3), ir.Value(name="t", const_value=ir.tensor([True]))
    set_type(training, TensorType((1,), np.dtype(bool)))
    node = ir.Node("", "Dropout", [x, None, training, None], num_outputs=3, version=21, name="d")
    node.outputs[0].name, node.outputs[2].name = "", ""
    call = call_of(node)
    assert call.inputs == (TensorType((2, 3), np.dtype("float32")), None, type_of(training))
    assert list(call.constants) == [2]
    assert (call.outputs, call.output_count, call.version, call.name) == ((), 2, 21, "d")
    assert present_outputs(node) == (None, node.outputs[1])
    set_type(node.outputs[1], TensorType((2, 3), np.dtype(bool)))
    assert call_of(node).outputs == (None, TensorType((2, 3), np.dtype(bool)))


def test_attributes_are_python_values() -> None:
    tensor = ir.tensor(np.array([1.5, 2.5]))
    attributes: dict[str, Any] = {
        "i": 3,
        "f": 0.5,
        "s": "VALID",
        "ints": [1, 2],
        "texts": ["a", "b"],
        "t": tensor,
    }
    call = call_of(ir.node("Anything", [], attributes, domain="mine"))
    assert call.identifier == "mine::Anything"
    assert (call.attribute("i"), call.attribute("f"), call.attribute("s")) == (3, 0.5, "VALID")
    assert (call.attribute("ints"), call.attribute("texts")) == ((1, 2), ("a", "b"))
    assert isinstance(call.attribute("t"), np.ndarray)
    np.testing.assert_array_equal(call.attribute("t"), [1.5, 2.5])


@pytest.mark.parametrize(
    "value",
    [
        _value("v", "N", 3),
        ir.Value(name="v", type=FLOAT),
        ir.Value(name="v", shape=ir.Shape((2,))),
        ir.Value(name="v", shape=ir.Shape((2,)), type=ir.TensorType(ir.DataType.UNDEFINED)),
        ir.Value(name="v", shape=ir.Shape((2,)), type=ir.SequenceType(FLOAT)),
    ],
)
def test_unknown_types_name_the_value(value: ir.Value) -> None:
    assert known_type(value) is None
    with pytest.raises(ValueError, match="the type of 'v' is not static"):
        type_of(value)


def test_setting_a_type_leaves_clones_alone() -> None:
    """onnx_ir's clones share type objects with their originals."""
    shared = _value("a", 2)
    other = ir.Value(name="b", type=shared.type, shape=shared.shape)
    set_type(other, TensorType((5,), np.dtype("int64")))
    assert str(type_of(shared)) == "float32[2]"
    assert str(type_of(other)) == "int64[5]"


def test_constants_of_initializers_and_constant_nodes() -> None:
    node = ir.node("Constant", [], {"value_ints": [4, 5]})
    array = constant_of(node.outputs[0])
    assert array is not None
    np.testing.assert_array_equal(array, np.array([4, 5], np.int64))
    assert array.dtype == np.int64
    assert constant_of(_value("x", 2)) is None


def test_version_comes_from_the_node_or_else_its_graph() -> None:
    x = _value("x", 2)
    node = ir.node("Relu", [x])
    assert version_of(node) == 0
    ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 23})
    assert version_of(node) == 23
    node.version = 21
    assert version_of(node) == 21
