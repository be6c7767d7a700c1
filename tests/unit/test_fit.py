"""What the loop of a training warns of."""

from __future__ import annotations

import onnx
import pytest

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


def test_parameters_that_several_nodes_read_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    train(model)
    assert not caplog.messages
    model.graph.node[1].input[2] = "fc1.bias"
    train(model)
    (told,) = caplog.messages
    assert told.startswith("parameters that several nodes read are trained as one for them: 1 (fc1")
    assert "from_torch keeps them apart" in told
