"""The nine real CNN graphs that the onnx package ships, on every OpenCL runtime installed.

Their shipped weights are constants, so their outputs are flat and hardly depend on the arithmetic:
these prove that every graph is understood. The same graphs with seeded random weights prove the
arithmetic, against ONNX Runtime, at the logits.
"""

from __future__ import annotations

import functools
import warnings
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
from bench.light_models import model_file, model_input, with_random_weights, without_softmax
from coexec.core.types import Array
from tests.runtimes import DRIVERS, THOROUGH

LOGITS = 1e-3
"""Largest difference from ONNX Runtime, relative to the largest logit."""


def _light_models() -> dict[str, TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases()
    return {case.model_name: case for case in cases if case.kind == "real"}


MODELS = _light_models()
FEW = ("inception_v1", "resnet50", "shufflenet")
"""Models for runtimes that build slowly, chosen for how different their layers are."""
ON_OPENCL = [
    (name, runtime) for runtime in DRIVERS for name in (MODELS if runtime in THOROUGH else FEW)
]


def test_all_nine_models_are_shipped() -> None:
    assert len(MODELS) == 9
    assert all(model_file(name).exists() for name in MODELS)


@pytest.mark.parametrize(("name", "runtime"), ON_OPENCL)
def test_shipped_output_on_opencl(name: str, runtime: str) -> None:
    check_shipped_output(name, onnx.load(model_file(name)), runtime)


@pytest.mark.parametrize("name", MODELS)
def test_shipped_output_on_the_reference(name: str) -> None:
    """In float64: squeezenet's logits are all about 1e10, and exp() of float32's rounding error
    there is anything. BLAS rounds one channel otherwise than the next; OpenCL kernels do not.
    """
    check_shipped_output(name, in_float64(onnx.load(model_file(name))), "reference")


@pytest.mark.parametrize(("name", "runtime"), ON_OPENCL)
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
    model = without_softmax(with_random_weights(onnx.load(model_file(name))))
    image = model_input(model)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    feeds = {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    return model, feeds, onnxruntime_output(model, feeds)


def check_shipped_output(name: str, model: onnx.ModelProto, processor: str) -> None:
    """The input that ONNX's own runner makes, and the tolerances it declares for the model."""
    case, image = MODELS[name], model_input(onnx.load(model_file(name)))
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


def onnxruntime_output(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every shape that no longer has a reader
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


def _expected_file(name: str) -> Path:
    return model_file(name).with_name(f"light_{name}_output_0.pb")
