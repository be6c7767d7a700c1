"""Training of models as PyTorch's exporters write them: what is a parameter, what form is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import coexec
from coexec.autodiff.losses import MeanSquaredError
from coexec.autodiff.optimizers import SGD
from coexec.core.types import Array
from tests.graphs import parse
from tests.pipeline.small import CLASSES, FEATURES, network
from tests.runtimes import THOROUGH

INITIAL_STATES = {
    "of a computed shape": "n = Shape(x) h = ConstantOfShape<value = float[1] {0}>(n)",
    "of a constant shape": (
        "n = Constant<value_ints = [4, 3]>() h = ConstantOfShape<value = float[1] {0}>(n)"
    ),
}


@pytest.mark.parametrize("state", INITIAL_STATES)
def test_tensors_filled_for_a_computed_shape_are_not_trained(state: str) -> None:
    """Initial states of recurrent layers and masks: PyTorch writes them so."""
    graph = (
        "g (float[N,3] x) => (float[N,3] y) <float[3] w = {1, 2, 3}> "
        f"{{ {INITIAL_STATES[state]} a = Mul(x, w) y = Add(a, h) }}"
    )
    trainer = coexec.Trainer(coexec.load(parse(graph)), MeanSquaredError(), SGD(0.1), ["reference"])
    x = np.ones((4, 3), np.float32)
    trainer.step({"x": x}, x)
    assert list(trainer.state()) == ["w"]


def training_form() -> onnx.ModelProto:
    """The small network as ``torch.onnx.export`` writes it with ``TrainingMode.TRAINING``."""
    model = network(dropout=True)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend(["new.mean", "new.var"])
        if node.op_type == "Dropout":
            node.input.append("dropping")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "dropping"))
    return model


def trained(model: onnx.ModelProto, x: Array) -> coexec.Trainer:
    """After three steps."""
    trainer = coexec.Trainer(coexec.load(model), MeanSquaredError(), SGD(0.1), ["opencl"])
    for _ in range(3):
        trainer.step({"x": x}, np.zeros((len(x), CLASSES), np.float32))
    return trainer


def test_models_in_training_form_predict_and_are_saved_in_inference_form(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((8, FEATURES), np.float32)
    usual, exported = trained(network(dropout=True), x), trained(training_form(), x)
    expected = usual.predict({"x": x})["y"]
    np.testing.assert_array_equal(exported.predict({"x": x})["y"], expected)
    exported.save(tmp_path / "trained.onnx")
    assert "dropping" not in exported.trained_model().graph.initializers
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx")
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    single = exported.predict({"x": x[:1]})["y"]
    np.testing.assert_allclose(single, expected[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("runtime", ["reference", *THOROUGH])
def test_rows_of_scores_that_are_all_masked_are_trained_as_if_absent(runtime: str) -> None:
    """PyTorch's exporter replaces what the softmax of such rows is: NaN."""
    graph = """
        g (float[N, 3] x, float[N, 3] mask) => (float[N, 3] y)
        <float[3, 3] w = {0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, -0.8, 0.9}, float zero = {0}>
        { h = MatMul(x, w) scores = Add(h, mask) p = Softmax(scores)
          undefined = IsNaN(p) y = Where(undefined, zero, p) }
    """
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    mask = np.array([[0, -np.inf, 0], [-np.inf, -np.inf, -np.inf]], np.float32)
    whole, row = (
        coexec.Trainer(coexec.load(parse(graph)), MeanSquaredError(), SGD(rate, 0.0), [runtime])
        for rate in (0.1, 0.05)
    )
    labels = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
    whole.step({"x": x, "mask": mask}, labels)
    row.step({"x": x[:1], "mask": mask[:1]}, labels[:1])
    assert np.isfinite(whole.state()["w"]).all()
    np.testing.assert_allclose(whole.state()["w"], row.state()["w"], rtol=1e-6)
