"""Weights of every element type and storage are read exactly and no longer tied to their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from coexec.frontend import load, read_model

VALUES = (0, 1, 3, 2, 0, 1)
KINDS = {
    "FLOAT": TensorProto.FLOAT,
    "DOUBLE": TensorProto.DOUBLE,
    "FLOAT16": TensorProto.FLOAT16,
    "BFLOAT16": TensorProto.BFLOAT16,
    "FLOAT8E4M3FN": TensorProto.FLOAT8E4M3FN,
    "FLOAT8E5M2": TensorProto.FLOAT8E5M2,
    "COMPLEX64": TensorProto.COMPLEX64,
    "COMPLEX128": TensorProto.COMPLEX128,
    "BOOL": TensorProto.BOOL,
    "INT4": TensorProto.INT4,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT4": TensorProto.UINT4,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
}


def _model(weight: onnx.TensorProto) -> onnx.ModelProto:
    """``y`` is a copy of ``weight``; ``x`` only makes it a graph with an input."""
    kind = weight.data_type
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", kind, list(weight.dims))],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def _array(model: ir.Model) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.Tensor)
    return tensor.numpy()


@pytest.mark.parametrize("name", KINDS)
def test_typed_and_raw_data_are_the_same(name: str) -> None:
    kind = KINDS[name]
    typed = helper.make_tensor("w", kind, (2, 3), VALUES)
    raw = TensorProto()
    raw.CopyFrom(ir.serde.serialize_tensor(ir.Tensor(ir.tensor(typed).numpy(), name="w")))
    assert raw.HasField("raw_data")
    for weight in (typed, raw):
        array = _array(read_model(_model(weight)))
        assert array.shape == (2, 3)
        expected = [bool(v) for v in VALUES] if name == "BOOL" else VALUES
        np.testing.assert_array_equal(array.astype(np.complex64).reshape(-1), expected)


@pytest.mark.parametrize("name", ["FLOAT", "BFLOAT16", "INT64", "INT4"])
def test_external_data_of_every_width(name: str, tmp_path: Path) -> None:
    """Elements under eight bits are packed in the file, too."""
    typed = helper.make_tensor("w", KINDS[name], (2, 3), VALUES)
    data = ir.tensor(typed).tobytes()
    (tmp_path / "weights").write_bytes(b"\xff" * 16 + data)
    weight = TensorProto(name="w", data_type=KINDS[name], dims=(2, 3))
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "16"), ("length", str(len(data)))):
        weight.external_data.add(key=key, value=value)
    (tmp_path / "model.onnx").write_bytes(_model(weight).SerializeToString())
    array = _array(read_model(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(array.astype(np.int64).reshape(-1), VALUES)


def test_weights_outlive_the_file(tmp_path: Path) -> None:
    """Overwriting the data file after loading changes nothing (no memory map is left)."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(3,))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights")
    (tmp_path / "weights").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    (tmp_path / "model.onnx").write_bytes(_model(weight).SerializeToString())
    model = load(tmp_path / "model.onnx")
    (tmp_path / "weights").write_bytes(bytes(12))
    np.testing.assert_array_equal(_array(model), [1, 2, 3])


def test_models_in_memory_are_not_changed() -> None:
    proto = _model(helper.make_tensor("w", TensorProto.FLOAT, (2, 3), VALUES))
    before = proto.SerializeToString(deterministic=True)
    model = load(proto)
    assert proto.SerializeToString(deterministic=True) == before
    text = str(model)
    load(model)
    assert str(model) == text
