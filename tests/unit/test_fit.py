"""What the loop of a training warns of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import coexec
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, fit
from tests.pipeline.small import arrays, network


def train(model: onnx.ModelProto) -> None:
    """One step."""
    trainer = coexec.Trainer(
        coexec.load(model),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(0.1),
        ["reference"],
    )
    data = arrays(4)
    fit(trainer, Dataset({"x": data["x"]}, data["labels"]), None, FitOptions(1, 4))


def test_matrices_that_hold_the_same_values_are_told(
    caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    """An exporter that folds the transposition of tied weights makes two of them."""
    model = network()
    first, last = model.graph.initializer[0], model.graph.initializer[6]
    assert (first.name, last.name) == ("fc1.weight", "fc2.weight")
    tied = rng.standard_normal((12, 24), np.float32)
    first.CopyFrom(numpy_helper.from_array(tied, "fc1.weight"))
    last.CopyFrom(numpy_helper.from_array(tied.T.copy(), "fc2.weight"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 12
    bias = next(value for value in model.graph.initializer if value.name == "fc2.bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros(12, np.float32), "fc2.bias"))
    train(model)
    (told,) = caplog.messages
    assert "transposed, are trained apart: 1 (fc1.weight and fc2.weight)" in told
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(tied + 1, "fc1.weight"))
    caplog.clear()
    train(model)
    assert not caplog.messages


def test_parameters_that_several_nodes_read_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    train(model)
    assert not caplog.messages
    model.graph.node[1].input[2] = "fc1.bias"
    train(model)
    (told,) = caplog.messages
    assert told.startswith("parameters that several nodes read are trained as one for them: 1 (fc1")
    assert "from_torch keeps them apart" in told
