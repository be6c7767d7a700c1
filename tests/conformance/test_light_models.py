"""The nine real CNN graphs that the onnx package ships, on every OpenCL runtime installed.

Their shipped weights are constants, so their outputs are flat and hardly depend on the arithmetic:
these prove that every graph is understood. The same graphs with seeded random weights prove the
arithmetic, against ONNX Runtime, at the logits.
"""

from __future__ import annotations

import functools
import warnings
import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.model import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner

import coexec
from coexec.core.types import Array
from coexec.processors.find import list_processors

RUNTIMES = [
    c.name
    for c in list_processors()
    if c.spec is not None and c.name.startswith("opencl:") and c.name != "opencl:oclgrind"
]
LOGITS = 1e-3
"""Largest difference from ONNX Runtime, relative to the largest logit."""


def _light_models() -> dict[str, TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases()
    return {case.model_name: case for case in cases if case.kind == "real"}


MODELS = _light_models()


def test_all_nine_models_are_shipped() -> None:
    assert len(MODELS) == 9
    assert all(_file(name).exists() for name in MODELS)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", MODELS)
def test_shipped_output_on_opencl(name: str, runtime: str) -> None:
    check_shipped_output(name, onnx.load(_file(name)), runtime)


@pytest.mark.parametrize("name", MODELS)
def test_shipped_output_on_the_reference(name: str) -> None:
    """In float64: squeezenet's logits are all about 1e10, and exp() of float32's rounding error
    there is anything. BLAS rounds one channel otherwise than the next; OpenCL kernels do not.
    """
    check_shipped_output(name, in_float64(onnx.load(_file(name))), "reference")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", MODELS)
def test_random_weights_agree_with_onnxruntime(name: str, runtime: str) -> None:
    model, feeds, expected = random_case(name)
    session = coexec.compile(coexec.load(model), [runtime])
    assert not session.fallbacks
    (actual,) = session.run(feeds).values()
    assert actual.shape == expected.shape
    # Random weights must make the thousand logits differ, or the comparison would be blind.
    assert expected.std() > 0.02 * np.abs(expected).max()
    assert len(np.unique(expected)) > 500  # squeezenet rectifies its logits
    assert np.abs(actual - expected).max() <= LOGITS * np.abs(expected).max()


@functools.lru_cache(maxsize=1)
def random_case(name: str) -> tuple[onnx.ModelProto, dict[str, Array], Array]:
    """A model with random weights, an image, ONNX Runtime's logits; kept for the next runtime."""
    model = without_softmax(with_random_weights(onnx.load(_file(name))))
    image = model_input(model)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    feeds = {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    return model, feeds, onnxruntime_output(model, feeds)


def check_shipped_output(name: str, model: onnx.ModelProto, processor: str) -> None:
    """The input that ONNX's own runner makes, and the tolerances it declares for the model."""
    case, image = MODELS[name], model_input(onnx.load(_file(name)))
    feeds = {image.name: Runner.generate_dummy_data(image).astype(input_dtype(model))}
    session = coexec.compile(coexec.load(model), [processor])
    assert not session.fallbacks
    (actual,) = session.run(feeds).values()
    expected = numpy_helper.to_array(onnx.load_tensor(_expected_file(name)))
    assert (actual.shape, actual.dtype) == (expected.shape, input_dtype(model))
    np.testing.assert_allclose(actual, expected, case.rtol, case.atol)


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 tensor in float64."""
    kinds = [v.type.tensor_type for v in (*model.graph.input, *model.graph.output)]
    for kind in (kind for kind in kinds if kind.elem_type == onnx.TensorProto.FLOAT):
        kind.elem_type = onnx.TensorProto.DOUBLE
    filled = [node.attribute[0].t for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for tensor in (*model.graph.initializer, *filled):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))
    model.graph.ClearField("value_info")
    return model


def input_dtype(model: onnx.ModelProto) -> np.dtype[Any]:
    """Element type of the image, and of everything computed from it."""
    return onnx.helper.tensor_dtype_to_np_dtype(model_input(model).type.tensor_type.elem_type)


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every weight drawn by its role, so that activations keep their scale."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = _weight_shapes(copy.graph)
    roles = _roles(copy.graph, shapes)
    drawn = [
        numpy_helper.from_array(_draw(name, roles[name], shapes[name]), name) for name in roles
    ]
    filled = [n for n in copy.graph.node if not set(n.output) & set(roles)]
    kept = [t for t in copy.graph.initializer if t.name not in roles]
    inputs = [v for v in copy.graph.input if v.name not in roles]
    for field, values in (("node", filled), ("initializer", [*kept, *drawn]), ("input", inputs)):
        copy.graph.ClearField(field)
        getattr(copy.graph, field).extend(values)
    return copy


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the logits as its output, where its last node is a Softmax."""
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    if last.op_type == "Softmax":
        kind = model.graph.output[0].type
        model.graph.node.remove(last)
        model.graph.ClearField("output")
        model.graph.output.append(onnx.ValueInfoProto(name=last.input[0], type=kind))
    return model


def model_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is data: models of this age list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    images: list[onnx.ValueInfoProto] = [v for v in model.graph.input if v.name not in weights]
    assert len(images) == 1
    return images[0]


def onnxruntime_output(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every shape that no longer has a reader
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


Role = tuple[str, int]
"""Operator that reads a weight, and the position of the operand."""


def _weight_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Every float weight: an initializer, or a ConstantOfShape of a constant shape."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        name: tuple(tensor.dims)
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = numpy_helper.to_array(tensors[node.input[0]])
            shapes[node.output[0]] = tuple(int(d) for d in shape)
    return shapes


def _roles(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, Role]:
    """What each weight is for; one that only passes a Reshape or Unsqueeze serves its reader."""
    readers = {name: (n, i) for n in graph.node for i, name in enumerate(n.input)}
    roles: dict[str, Role] = {}
    for name in shapes.keys() & readers.keys():  # resnet50 lists a weight that nothing reads
        node, index = readers[name]
        while node.op_type in ("Reshape", "Unsqueeze"):
            node, index = readers[node.output[0]]
        roles[name] = (node.op_type, index)
    return roles


def _draw(name: str, role: Role, shape: tuple[int, ...]) -> Array:
    """He-scaled products (He et al., 2015); scales and variances near 1; small shifts.

    The seed is the weight's name: no weight depends on the order of others.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if role in (("Conv", 1), ("Gemm", 1)):
        deviation = sqrt(2 / prod(shape[1:]))
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)
    if role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    shifts = {("Conv", 2), ("Gemm", 2), ("Add", 1), *(("BatchNormalization", i) for i in (2, 3))}
    assert role in shifts, f"{name}: no rule for a weight of {role}"
    return rng.standard_normal(shape, np.float32) * np.float32(0.1)


def _file(name: str) -> Path:
    return Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"


def _expected_file(name: str) -> Path:
    return _file(name).with_name(f"light_{name}_output_0.pb")
