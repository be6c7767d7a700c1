"""Files that are no good model end in one clear message: never a crash, a hang or a surprise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from coexec.base.errors import ModelError, ShapeError, UnsupportedOperators
from coexec.frontend import load
from tests.graphs import parse

GOOD = "g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {0,1,2,3,4,5,6,7,8,9,10,11}>"
DENSE = f"{GOOD} {{ a = MatMul(x, w) y = Relu(a) }}"


def _message(source: str | Path | bytes | onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    return str(caught.value)


# Files


def test_a_good_model_loads() -> None:
    assert [node.op_type for node in load(parse(DENSE)).graph] == ["MatMul", "Relu"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, this is a text file\n", "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
        (b"PK\x03\x04" + bytes(100), r"a zip archive \(a PyTorch checkpoint\?\)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "a TensorFlow Lite model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    found = _message(path)
    assert re.search(message, found)
    assert found.startswith(str(path))


def test_missing_file_folder_and_device(tmp_path: Path) -> None:
    assert _message(tmp_path / "none.onnx") == f"{tmp_path / 'none.onnx'}: no such file"
    assert "is a folder" in _message(tmp_path)
    assert "is not a regular file" in _message(os.devnull)


def test_truncated_file_says_what_is_missing() -> None:
    data = parse(DENSE).SerializeToString()
    for length in range(len(data)):
        assert _message(data[:length])
    assert "truncated ONNX file: at least 20 bytes are missing" in _message(_shortened(data, 20))


def _shortened(data: bytes, missing: int) -> bytes:
    """``data`` with its graph as the last field, cut inside the graph."""
    proto = onnx.ModelProto.FromString(data)
    graph = onnx.ModelProto(graph=proto.graph).SerializeToString()
    proto.ClearField("graph")
    whole: bytes = proto.SerializeToString() + graph
    return whole[:-missing]


def test_model_without_graph_or_nodes() -> None:
    assert "holds no graph" in _message(onnx.ModelProto(ir_version=8).SerializeToString())
    empty = parse(DENSE)
    del empty.graph.node[:]
    assert _message(empty) == "empty graph: the model has no nodes"


# Graphs


def _edited(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = parse(DENSE)
    edit(proto)
    return proto


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.graph.node[0].input.__setitem__(0, "y"),
            "the graph has a cycle: node 'a' (MatMul) -> node 'y' (Relu) -> node 'a' (MatMul)",
        ),
        (
            lambda m: m.graph.node[1].input.__setitem__(0, "ghost"),
            "input of node 'y' (Relu) is not defined anywhere: 'ghost'",
        ),
        (
            lambda m: m.graph.output[0].__setattr__("name", "ghost"),
            "graph output is not defined anywhere: 'ghost'",
        ),
        (
            lambda m: m.graph.node[1].output.__setitem__(0, "a"),
            "node 'a' (Relu) defines 'a', which is already defined",
        ),
        (
            lambda m: m.graph.initializer.append(m.graph.initializer[0]),
            "initializer defined twice: 'w'",
        ),
        (
            lambda m: m.graph.input.append(m.graph.input[0]),
            "graph input defined twice: 'x'",
        ),
        (
            lambda m: m.graph.node[1].input.append("a"),
            "node 'y' (Relu) has 2 inputs where the operator takes 1",
        ),
        (
            lambda m: m.graph.node[1].__setattr__("domain", "my.domain"),
            "node 'y' (Relu) uses the domain 'my.domain', for which the model imports no opset",
        ),
        (
            lambda m: m.opset_import[0].__setattr__("version", 999),
            (
                "the model is in opset 999; the installed onnx package knows up to "
                f"{onnx.defs.onnx_opset_version()}: upgrade it"
            ),
        ),
        (
            lambda m: m.graph.initializer[0].dims.__setitem__(0, -4),
            "initializer 'w' has a negative dimension: [-4, 3]",
        ),
        (
            lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**62),
            (
                "initializer 'w' claims 13835058055282163712 elements [4611686018427387904, 3]: "
                "more than 1 TiB"
            ),
        ),
        (
            lambda m: m.graph.initializer[0].dims.__setitem__(0, 5),
            "initializer 'w' has 12 numbers of data where its shape needs 15",
        ),
        (
            lambda m: m.graph.initializer[0].__setattr__("data_type", 99),
            "initializer 'w' has the unknown element type 99",
        ),
        (
            lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", -1),
            "value 'x' has a negative dimension: [-1]",
        ),
    ],
)
def test_inconsistent_graph(edit: Callable[[onnx.ModelProto], object], message: str) -> None:
    assert _message(_edited(edit)) == message


def test_operators_older_than_opset_9() -> None:
    proto = parse("g (float[4] x) => (float[4] y) { y = Upsample<scales = [2.0]>(x) }", 8)
    assert _message(proto) == (
        "the model is in opset 8; coexec reads 9 and newer, and these operators changed until "
        "then: Upsample (onnx.version_converter.convert_version upgrades it)"
    )
    unchanged = parse("g (float[4] x) => (float[4] y) { y = Add(x, x) }", 8)
    assert load(unchanged).opset_imports[""] == 21


def test_attribute_of_the_wrong_kind() -> None:
    proto = parse("g (float[N,4] x) => (float[N,4] y) { y = Softmax<axis = 0.5>(x) }")
    assert _message(proto) == (
        "node 'y' (Softmax): attribute 'axis' is FLOAT where the operator has INT"
    )


def test_function_that_calls_itself() -> None:
    functions = '<domain: "f", opset_import: ["f": 1]> Again (a) => (b) { b = f.Again(a) }'
    proto = parse(
        "g (float[4] x) => (float[4] y) { y = f.Again(x) }", domains='"f": 1', functions=functions
    )
    assert _message(proto).startswith("function f::Again calls itself")


def test_functions_that_double_at_every_level() -> None:
    """Forty small functions would make 2 to the 40 nodes."""
    levels = [
        f'<domain: "f", opset_import: ["f": 1, "": 21]> F{i} (a) => (c) '
        f"{{ b = f.F{i + 1}(a) c = f.F{i + 1}(b) }}"
        for i in range(40)
    ]
    last = '<domain: "f", opset_import: ["": 21]> F40 (a) => (b) { b = Relu(a) }'
    proto = parse(
        "g (float[4] x) => (float[4] y) { y = f.F0(x) }",
        domains='"f": 1',
        functions=" ".join([*levels, last]),
    )
    assert _message(proto) == f"inlining its functions would make {2**40} nodes of the model"


def test_split_into_more_parts_than_outputs() -> None:
    """Given through a function's attribute, it shows only where the function is called."""
    body = (
        '<domain: "f", opset_import: ["": 21]> Cut <n> (a) => (b, c) '
        "{ b, c = Split<num_outputs: int = @n>(a) }"
    )
    graph = f"g (float[4] x) => (float[2] b, float[2] c) {{ b, c = f.Cut<n = {2**62}>(x) }}"
    found = _message(parse(graph, domains='"f": 1', functions=body))
    assert found == f"node 'Split_b' (Split) has 2 outputs and num_outputs {2**62}"


# External data


def _external(tmp_path: Path, location: str, **entries: str) -> Path:
    """A model whose weight ``w`` lies in ``location``."""
    proto = parse(DENSE)
    weight = proto.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


def test_external_data_are_read(tmp_path: Path) -> None:
    path = _external(tmp_path, "w.bin", offset="8", length="48")
    weights = np.arange(14, dtype=np.float32)
    (path.parent / "w.bin").write_bytes(weights.tobytes())
    tensor = load(path).graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), weights[2:].reshape(4, 3))


@pytest.mark.parametrize(
    "location", ["../secret.bin", "a/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", ""]
)
def test_external_data_path_that_leaves_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    found = _message(_external(tmp_path, location))
    assert found == f"initializer 'w': unsafe external data path {location!r}; refused"


def test_absolute_external_data_path(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(48))
    assert "unsafe external data path" in _message(_external(tmp_path, str(secret)))


def test_symbolic_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    path = _external(tmp_path, "w.bin")
    (path.parent / "w.bin").symlink_to(tmp_path / "secret.bin")
    assert "leaves the model's folder; refused" in _message(path)


def test_missing_truncated_or_misdescribed_external_data(tmp_path: Path) -> None:
    path = _external(tmp_path, "w.bin")
    assert _message(path) == "initializer 'w': its external data file 'w.bin' is missing"
    (path.parent / "w.bin").write_bytes(bytes(40))
    assert "needs bytes 0 to 48 of its external data w.bin, which has only 40" in _message(path)
    path = _external(tmp_path, "w.bin", length="40")
    assert "has 40 bytes of data where its shape needs 48" in _message(path)
    path = _external(tmp_path, "w.bin", offset="-8")
    assert "offset '-8' is not a number of bytes" in _message(path)


def test_external_data_without_a_file(tmp_path: Path) -> None:
    data = _external(tmp_path, "w.bin").read_bytes()
    assert "a model without a file has no folder" in _message(data)


# Operators and shapes


def test_classical_machine_learning_is_out_of_scope() -> None:
    proto = parse(
        "g (float[N,2] x) => (float[N,1] y) { y = ai.onnx.ml.TreeEnsembleRegressor(x) }",
        domains='"ai.onnx.ml": 3',
    )
    with pytest.raises(UnsupportedOperators, match=r"classical machine learning .* out of scope"):
        load(proto)


def test_all_unsupported_operators_in_one_table() -> None:
    proto = parse(
        "g (float[N] x) => (float[N] y) { "
        "a = com.microsoft.Wobble(x) b = ImageDecoder(a) c = com.microsoft.Wobble(x) d = Nope(c) "
        "e = Cast<to = 1>(b) f = ReduceSum(e) s = Add(f, d) y = Add(s, x) }",
        domains='"com.microsoft": 1',
    )
    with pytest.raises(UnsupportedOperators) as caught:
        load(proto)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 operators are not supported:"
    assert lines[1].split() == ["operator", "count", "nodes", "reason"]
    assert re.fullmatch(
        r"  com\.microsoft::Wobble      2  Wobble_a, Wobble_c  ONNX Runtime's own: give the model "
        r"as it was before ONNX Runtime optimised it",
        lines[2],
    )
    assert re.fullmatch(r"  ImageDecoder +1  ImageDecoder_b +not implemented, .*", lines[3])
    assert re.fullmatch(r"  Nope +1  Nope_d +ONNX has no operator of this name", lines[4])


def test_shapes_that_do_not_fit_name_node_operator_and_types() -> None:
    proto = parse("g (float[2,5] x, float[4,3] w) => (float[2,3] y) { y = MatMul(x, w) }")
    with pytest.raises(ShapeError) as caught:
        load(proto)
    assert str(caught.value).startswith(
        "node 'MatMul_y' (MatMul) on (x: float32[2x5], w: float32[4x3]): "
    )


def test_element_types_that_do_not_fit() -> None:
    proto = parse("g (float[2] x, int64[2] i) => (float[2] y) { y = Add(x, i) }")
    with pytest.raises(ShapeError, match="inputs 0 and 1 must have the same element type"):
        load(proto)


def test_constant_index_out_of_range() -> None:
    proto = parse(
        "g (float[2] x) => (float[2] y) <int64[2] d = {1, 2}, int64[1] i = {7}> "
        "{ n = Gather(d, i) y = Expand(x, n) }"
    )
    assert _message(proto).startswith("node 'Gather_n' (Gather)")


def test_input_that_is_no_tensor() -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    node = helper.make_node("Identity", ["x"], ["y"])
    proto = helper.make_model(helper.make_graph([node], "g", [sequence], [result]))
    assert "coexec computes on tensors" in _message(proto)


# Fuzzing

FILES = 2000
MEMORY = 2**30
SECONDS = 10.0


def test_mutated_files_end_in_an_error_or_a_result(tmp_path: Path) -> None:
    """Bytes and fields of real models mutated: in a process of its own, which must survive."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.fuzz_models", str(FILES), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert run.returncode == 0, f"the process ended with {run.returncode}: {run.stderr[-2000:]}"
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["unexpected"] == []
    assert sum(result["outcomes"].values()) == FILES
    assert result["outcomes"]["ok"] > 0.02 * FILES  # the mutations are not all shallow
    assert result["outcomes"]["ShapeError"] > 0.02 * FILES
    assert result["slowest_s"] < SECONDS
    assert result["peak_bytes"] < MEMORY
