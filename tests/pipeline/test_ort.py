"""Models on ONNX Runtime's processors, alone and beside another: inference and training."""

from __future__ import annotations

import functools
import importlib.util
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

import coexec
from bench.light_models import model_file, model_input, with_random_weights, without_softmax
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam, Optimizer
from coexec.base.errors import FallbackWarning, ProcessorError
from coexec.core.events import Trace
from coexec.core.processor import Support
from coexec.core.types import Array, OpCall
from coexec.processors.find import open_processor
from tests.graphs import parse
from tests.pipeline.small import arrays, network

LIGHT = ("shufflenet", "squeezenet", "densenet121")
STEPS = 6


@pytest.mark.parametrize("name", LIGHT)
def test_light_models_equal_onnxruntime_run_directly(name: str) -> None:
    model = without_softmax(with_random_weights(onnx.load(model_file(name))))
    image = model_input(model)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    feeds = {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    session = coexec.compile(coexec.load(model), ["ort:cpu"])
    assert not session.fallbacks
    (actual,) = session.run(feeds).values()
    expected = direct(model, feeds)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


QUANTISED = """g (float[1,16,2,2] x) => (float[1,1,2,2] y)
<float s = {0.004}, float t = {0.1}, uint8 z = {0}> {
    q = QuantizeLinear(x, s, z)
    a = DequantizeLinear(q, s, z)
    w = ConstantOfShape<value = float {0.5}>(shape)
    b = Conv<kernel_shape = [1,1]>(a, w)
    r = QuantizeLinear(b, t, z)
    y = DequantizeLinear(r, t, z)
}""".replace("uint8 z = {0}", "uint8 z = {0}, int64[4] shape = {1, 16, 1, 1}")


def test_eight_bit_products_do_not_saturate() -> None:
    x = np.ones((1, 16, 2, 2), np.float32)
    model = coexec.load(parse(QUANTISED))
    actual = coexec.compile(model, ["ort:cpu"]).run({"x": x})["y"]
    expected = coexec.compile(model, ["reference"]).run({"x": x})["y"]
    np.testing.assert_allclose(actual, expected, atol=0.11)


def direct(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


# Training


def losses(processors: tuple[str, ...], optimizer: Optimizer, trace: Trace | None = None) -> Array:
    trainer = coexec.Trainer(
        coexec.load(zoo.build("lenet5", batch=8)), SoftmaxCrossEntropy(), optimizer, processors
    )
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 1, 28, 28), np.float32), rng.integers(0, 10, 8)
    found = [trainer.step({"x": x}, labels, trace) for _ in range(STEPS)]
    assert processors[0] == "reference" or not trainer.plan.table()
    return np.array(found)


@functools.cache
def reference_losses(optimizer: type[SGD | Adam]) -> Array:
    return losses(("reference",), optimizer(1e-3))


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_training_follows_the_reference(optimizer: type[SGD | Adam]) -> None:
    expected = reference_losses(optimizer)
    assert expected[-1] < 0.9 * expected[0]
    actual = losses(("ort:cpu",), optimizer(1e-3))
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


def test_batch_statistics_follow_the_reference() -> None:
    data = arrays(16)
    states = []
    for spec in ("reference", "ort:cpu"):
        trainer = coexec.Trainer(coexec.load(network()), SoftmaxCrossEntropy(), SGD(0.05), [spec])
        for _ in range(STEPS):
            trainer.step({"x": data["x"]}, data["labels"])
        states.append(trainer.state())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


# Two processors


@pytest.fixture
def no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default OpenCL device leaves products to the next processor."""
    opencl = open_processor("opencl")
    supports = opencl.supports

    def without(call: OpCall) -> Support:
        refused = call.op_type in ("Gemm", "MatMul")
        return Support(False, "left to the other") if refused else supports(call)

    monkeypatch.setattr(opencl, "supports", without)


@pytest.mark.usefixtures("no_products")
def test_two_processors_run_one_model() -> None:
    x, trace = arrays(5)["x"], Trace()
    expected = coexec.compile(coexec.load(network()), ["reference"]).run({"x": x})["y"]
    session = coexec.compile(coexec.load(network()), ["opencl", "ort:cpu?threads=1"])
    with pytest.warns(FallbackWarning, match="left to the other"):
        found = session.run({"x": x}, trace=trace)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    tracks = {event.track for event in trace.leaves()}
    assert {track.partition(":")[0] for track in tracks} == {"opencl", "ort"}


@pytest.mark.usefixtures("no_products")
def test_two_processors_train_one_model() -> None:
    data = arrays(16)
    found, used = [], set[str]()
    for processors in (["reference"], ["opencl", "ort:cpu?threads=1"]):
        trainer = coexec.Trainer(
            coexec.load(network()), SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9), processors
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            found.append([trainer.step({"x": data["x"]}, data["labels"]) for _ in range(STEPS)])
        used.update(name.partition(":")[0] for name in trainer.plan.processors.values())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert used == {"reference", "opencl", "ort"}


def test_a_refusal_is_in_the_plan_with_its_reason() -> None:
    text = "g (int32[3] x) => (int32[] y) { a = Add(x, x) y = ReduceProd<keepdims=0>(a) }"
    with pytest.warns(FallbackWarning):
        session = coexec.compile(coexec.load(parse(text)), ["ort:cpu"])
    assert "products of integers saturate" in session.fallbacks
    assert session.run({"x": np.array([1, 2, 3], np.int32)})["y"] == 48


# NPUs


@pytest.mark.parametrize(
    ("spec", "module", "package"),
    [
        ("ort:qnn", "onnxruntime_qnn", "onnxruntime-qnn"),
        ("ort:openvino", "onnxruntime_ep_openvino", "onnxruntime-ep-openvino"),
    ],
)
def test_an_absent_provider_says_what_to_install(spec: str, module: str, package: str) -> None:
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(
        ProcessorError, match=f"not available: not installed: pip install {package}"
    ):
        open_processor(spec)
