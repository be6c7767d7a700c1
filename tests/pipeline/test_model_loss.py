"""Losses that are part of the model: its own output is what is minimised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import coexec
from coexec.autodiff.losses import Loss, ModelLoss, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import DataError, NonFiniteLoss, UsageError
from coexec.steps.builder import Updates
from tests.pipeline import command
from tests.pipeline.small import CLASSES, FEATURES, arrays, network, parameters
from tests.runtimes import THOROUGH

BATCH = 8
EVERY_UPDATES: tuple[Updates, ...] = ("early", "together")


def with_loss(labels: str = "labels") -> onnx.ModelProto:
    """The small network with its cross-entropy: inputs x and labels, outputs y and loss."""
    model = network()
    graph = model.graph
    graph.node.append(helper.make_node("SoftmaxCrossEntropyLoss", ["y", labels], ["loss"]))
    graph.input.append(helper.make_tensor_value_info(labels, TensorProto.INT64, ["N"]))
    graph.output.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))
    return model


def trainer(model: onnx.ModelProto, loss: Loss, processor: str, **how: int) -> coexec.Trainer:
    loaded = coexec.load(model)
    return coexec.Trainer(loaded, loss, SGD(0.05, 0.9), [processor], **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("processor", THOROUGH)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_within_the_model_trains_as_the_same_one_beside_it(
    processor: str, parts: int
) -> None:
    data = arrays(BATCH)
    x, labels = data["x"], data["labels"]
    within = trainer(with_loss(), ModelLoss(output="loss"), processor, micro_batches=parts)
    beside = trainer(network(), SoftmaxCrossEntropy(), processor, micro_batches=parts)
    for _ in range(4):
        loss = within.step({"x": x, "labels": labels})
        assert loss == pytest.approx(beside.step({"x": x}, labels), rel=1e-6)
    for name, value in beside.state().items():
        np.testing.assert_allclose(within.state()[name], value, rtol=1e-5, atol=1e-7)
    found = within.predict({"x": x, "labels": labels})
    np.testing.assert_allclose(found["y"], beside.predict({"x": x})["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("processor", THOROUGH)
def test_parameters_may_change_as_soon_as_the_loss_is_known(processor: str) -> None:
    data = arrays(BATCH)
    early, together = (
        coexec.Trainer(
            coexec.load(with_loss()),
            ModelLoss(output="loss"),
            SGD(0.05, 0.9),
            [processor],
            updates=updates,
        )
        for updates in EVERY_UPDATES
    )
    for _ in range(3):
        assert early.step(data) == together.step(data)
    bad = data | {"x": np.full_like(data["x"], np.nan)}
    before = early.state()
    with pytest.raises(NonFiniteLoss):
        early.step(bad)
    for name, value in early.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_an_output_that_is_no_loss_is_refused() -> None:
    data = arrays(BATCH)
    with pytest.raises(UsageError, match=f"output 'y' is float32.8x{CLASSES}., not the loss"):
        trainer(with_loss(), ModelLoss(), "reference").step(data)
    with pytest.raises(UsageError, match="output 'cost'; there are: y, loss"):
        trainer(with_loss(), ModelLoss(output="cost"), "reference").step(data)


def test_labels_go_where_the_loss_is() -> None:
    data = arrays(BATCH)
    within = trainer(with_loss(), ModelLoss(output="loss"), "reference")
    with pytest.raises(DataError, match="labels are inputs of the model"):
        within.step(data, data["labels"])
    with pytest.raises(DataError, match=r"inputs .*'x', 'labels'.* are empty"):
        within.step({name: array[:0] for name, array in data.items()})
    beside = trainer(network(), SoftmaxCrossEntropy(), "reference")
    with pytest.raises(DataError, match="this loss takes labels"):
        beside.step({"x": data["x"]})


def test_a_loss_judges_the_output_that_it_names() -> None:
    """Another output may stand in front of it."""
    model = network()
    first = helper.make_tensor_value_info("c", TensorProto.FLOAT, None)
    model.graph.output.insert(0, first)
    data = arrays(BATCH)
    named = trainer(model, SoftmaxCrossEntropy(output="y"), "reference")
    usual = trainer(network(), SoftmaxCrossEntropy(), "reference")
    for _ in range(2):
        loss = named.step({"x": data["x"]}, data["labels"])
        assert loss == usual.step({"x": data["x"]}, data["labels"])


@pytest.mark.parametrize("options", [(), ("--memory", "64MiB"), ("--activations", "bits")])
def test_the_command_trains_by_the_models_own_loss(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """20 samples in batches of 8: the last 4 held-out ones are a batch of their own."""
    (tmp_path / "own.onnx").write_bytes(with_loss("truth").SerializeToString())
    (tmp_path / "usual.onnx").write_bytes(network().SerializeToString())
    data = arrays(20)
    np.savez(tmp_path / "own.npz", x=data["x"], truth=data["labels"])
    np.savez(tmp_path / "usual.npz", **data)

    def run(name: str, *more: str) -> command.Done:
        files = ("--data", tmp_path / f"{name}.npz", "--validation", tmp_path / f"{name}.npz")
        how = ("--batch-size", BATCH, "--epochs", 2, "--out", tmp_path / f"{name}-out.onnx")
        every = map(str, ("train", tmp_path / f"{name}.onnx", *files, *how, "--json"))
        return command.coexec(*every, *options, *more)

    own = run("own", "--loss", "model", "--loss-output", "loss").record
    usual = run("usual").record
    assert own["loss_last"] == pytest.approx(usual["loss_last"], rel=1e-5)
    assert own["validation_loss"] == pytest.approx(usual["validation_loss"], rel=1e-5)
    assert own["accuracy"] is None
    trained, expected = (parameters(tmp_path / f"{n}-out.onnx") for n in ("own", "usual"))
    assert trained.keys() == expected.keys()


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--processors", "reference", "--budget", "0"),
        ("profile", "-p", "reference", "--steps", "1"),
        ("simulate", "--machine", "snapdragon-865", "--runs", "1"),
        ("tune", "-p", THOROUGH[0], "--budget", "0.1s"),
    ],
    ids=lambda words: words[0],
)
def test_commands_look_at_steps_with_a_loss_of_the_model(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path / "cache"))  # tuned kernels stay there
    model = tmp_path / "model.onnx"
    onnx.save(with_loss(), model)
    options = ("--train", "--loss", "model", "--shape", f"x={BATCH}x{FEATURES}")
    every = (words[0], str(model), *words[1:], *options, "--shape", f"labels={BATCH}", "--json")
    assert command.coexec(*every, "--loss-output", "loss").record
    assert "name the output that is" in command.coexec(*every).error["error"]
