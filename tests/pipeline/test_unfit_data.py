"""Data and models that would train, but not on what is meant: refused, or told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import coexec
from coexec.base.errors import DataError, NonFiniteLoss
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, fit
from tests.graphs import parse
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import CLASSES, arrays, network, write_data

WORDS = 6
LOOKS_UP = (
    "g (int64[N,L] ids) => (float[N,4] y) "
    "<float[6,4] table = {1,2,3,4, 1,2,3,4, 1,2,3,4, 1,2,3,4, 1,2,3,4, 1,2,3,4}, "
    "int64[1] middle = {1}> { [same] i = Cast<to = 6>(ids) [words] e = Gather<axis = 0>(table, i) "
    "y = ReduceMean<keepdims = 0>(e, middle) }"
)


def trainer(proto: onnx.ModelProto, loss: Any = None) -> coexec.Trainer:
    loss = loss or coexec.losses.SoftmaxCrossEntropy()
    return coexec.Trainer(coexec.load(proto), loss, coexec.optim.SGD(0.1), ["reference"])


def sentences(*extreme: int) -> Dataset:
    """Eight sentences of three words, the last of which ends in these."""
    ids = np.arange(24).reshape(8, 3) % WORDS
    ids[-1, : len(extreme)] = extreme
    return Dataset({"ids": ids}, np.arange(8) % 4)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("extreme", [WORDS, -WORDS - 1])
def test_indices_without_an_entry_are_refused_before_training(extreme: int, held_out: bool) -> None:
    good, bad = sentences(), sentences(extreme)
    learner = trainer(parse(LOOKS_UP))
    low, high = min(extreme, 0), max(extreme, WORDS - 1)
    message = (
        f"{'held-out' if held_out else 'training'} data: input 'ids' ranges from {low} to {high}, "
        "but Gather 'words' looks it up in 6 entries (0 to 5)"
    )
    with pytest.raises(DataError) as caught:
        fit(learner, good if held_out else bad, bad if held_out else None, FitOptions(1, 4))
    assert str(caught.value) == message
    assert learner.steps == 0


def test_indices_from_the_back_are_in_order() -> None:
    learner = trainer(parse(LOOKS_UP))
    fit(learner, sentences(-1, -WORDS), sentences(WORDS - 1), FitOptions(1, 4))
    assert learner.steps == 2


def ending_in(operator: str) -> onnx.ModelProto:
    """The small network with probabilities as its output."""
    proto = network()
    proto.graph.node[-1].output[0] = "logits"
    proto.graph.node.append(helper.make_node(operator, ["logits"], ["p"], name="last"))
    proto.graph.node.append(helper.make_node("Identity", ["p"], ["y"]))
    return proto


@pytest.mark.parametrize(
    ("operator", "loss", "told"),
    [
        ("Softmax", coexec.losses.SoftmaxCrossEntropy(), True),
        ("LogSoftmax", coexec.losses.SoftmaxCrossEntropy(), False),  # its softmax is the same
        ("Sigmoid", coexec.losses.BinaryCrossEntropyWithLogits(), True),
        ("Softmax", coexec.losses.MeanSquaredError(), False),
    ],
)
def test_probabilities_under_a_loss_of_logits_are_told_of(
    operator: str, loss: Any, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = arrays(8)
    classes = isinstance(loss, coexec.losses.SoftmaxCrossEntropy)
    labels = data["labels"] if classes else np.eye(CLASSES, dtype=np.float32)[data["labels"]]
    learner = trainer(ending_in(operator), loss)
    fit(learner, Dataset({"x": data["x"]}, labels), None, FitOptions(1, 8))
    messages = [text for text in caplog.messages if "takes logits" in text]
    assert len(messages) == told
    assert all(f"output 'y' comes from {operator} 'last'" in text for text in messages)


def test_advice_for_a_loss_that_is_not_finite_goes_by_its_cause() -> None:
    data = arrays(8)
    learner = trainer(network())
    with pytest.raises(NonFiniteLoss, match=r"input 'x' is not finite.*Look for NaN .* the data$"):
        learner.step({"x": np.full_like(data["x"], np.inf)}, data["labels"])
    proto = network()
    weight = proto.graph.initializer[0]
    weight.raw_data = np.full(weight.dims, np.nan, np.float32).tobytes()
    learner = trainer(proto)
    with pytest.raises(NonFiniteLoss, match=r"parameter 'fc1.weight' is not.*the model's file$"):
        learner.step({"x": data["x"]}, data["labels"])


def test_arrays_of_objects_are_refused_in_words(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(network().SerializeToString())
    data = write_data(tmp_path / "data.npz", labels=np.zeros(48, object))
    message = failed(command("train", model, "--data", data))
    assert message.endswith("it holds Python objects (dtype object); save arrays of numbers")
