"""Data, labels and losses that are wrong end in one clear message, and nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.base.errors import CoexecError, DataError, GradientError, NonFiniteLoss, UsageError
from coexec.training.checkpoint import load_checkpoint
from coexec.training.data import Dataset
from tests.graphs import parse
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import CLASSES, FEATURES, arrays, network, write_data, write_network
from tests.runtimes import DRIVERS

PROCESSORS = ("reference", DRIVERS[-1])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def trainer(processor: str = "reference", **options: Any) -> coexec.Trainer:
    return coexec.Trainer(
        coexec.load(network()),
        options.pop("loss", coexec.losses.SoftmaxCrossEntropy()),
        options.pop("optimizer", coexec.optim.SGD(0.1)),
        [processor],
        **options,
    )


# Arguments of another kind


def test_what_is_no_model_says_what_gives_one() -> None:
    for given in ("model.onnx", network(), None):
        with pytest.raises(UsageError, match=r"model is .*; it has to be as coexec.load"):
            coexec.compile(given, ["reference"])  # type: ignore[arg-type]
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.1)
    with pytest.raises(UsageError, match=r"model is 'model.onnx'; .*coexec.load"):
        coexec.Trainer("model.onnx", loss, optimizer, ["reference"])  # type: ignore[arg-type]


def test_losses_and_optimizers_by_name_or_class_say_what_is_wanted() -> None:
    with pytest.raises(UsageError, match=r"loss is 'mse'; .*SoftmaxCrossEntropy\(\)"):
        trainer(loss="mse")
    with pytest.raises(UsageError, match=r"optimizer is <class .*; .*SGD\(0.01\)"):
        trainer(optimizer=coexec.optim.SGD)


@pytest.mark.parametrize("source", [5, None, ["model.onnx"]])
def test_what_no_model_can_be_read_from_is_named(source: Any) -> None:
    with pytest.raises(UsageError, match=r"source is .*; it has to be a path, the bytes"):
        coexec.load(source)


@pytest.mark.parametrize("shapes", [{"x": "abc"}, {"x": 5}, {"x": (2.5, 12)}, [(2, 12)]])
def test_shapes_that_are_none_are_named(shapes: Any) -> None:
    with pytest.raises(UsageError, match=r"shapes is .*; it has to be whole numbers by name"):
        coexec.load(network(), shapes=shapes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processors": [3]}, "processors is [3]; it has to be a list of texts"),
        ({"processors": 3}, "processors is 3; it has to be a list of texts"),
        ({"mode": "fast"}, "mode is 'fast'; it has to be as coexec.ExecutionMode()"),
        ({"plan": 5}, "plan is 5; it has to be as 'plan.json', which coexec plan --save"),
    ],
)
def test_options_of_another_kind_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        coexec.compile(coexec.load(network()), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trainable": "fc1*"}, "trainable is 'fc1*'; it has to be a list of texts"),
        ({"clip_norm": -1}, "clip_norm is -1; it has to be a finite number of at least 0"),
        ({"clip_norm": "1"}, "clip_norm is '1'; it has to be a finite number of at least 0"),
        ({"paging": "half"}, "paging is 'half'; it has to be a finite number of at least 0"),
        ({"micro_batches": 0}, "micro_batches is 0; it has to be a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; it has to be a whole number of at least 0"),
        ({"seed": 0.5}, "seed is 0.5; it has to be a whole number of at least 0"),
        ({"micro_batches": 2.5}, "micro_batches is 2.5; it has to be a whole number of at least 1"),
    ],
)
def test_options_of_a_training_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        trainer(**given)


# Data of Session.run


def rows(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": rows(2, 5)}, "input 'x' wants shape Nx12, the data has 2x5"),
        ({"x": rows(12)}, "input 'x' wants shape Nx12, the data has 12"),
        (
            {"x": rows(2, FEATURES).astype(np.int64)},
            "input 'x' wants float32, not int64; convert it first",
        ),
        (
            {"x": rows(2, FEATURES).astype(complex)},
            "input 'x' wants float32, not complex128; convert it first",
        ),
        (
            {"x": np.full((2, FEATURES), "1")},
            "input 'x' is text; coexec computes on numbers",
        ),
        (
            {"x": np.full((2, FEATURES), None)},
            "input 'x' is Python objects; coexec computes on numbers",
        ),
        (
            {},
            "inputs do not fit the model: missing ['x'], unknown []; the model's inputs are ['x']",
        ),
        (
            {"X": rows(2, FEATURES)},
            (
                "inputs do not fit the model: missing ['x'], unknown ['X']; "
                "the model's inputs are ['x']"
            ),
        ),
        (
            {"x": rows(2, FEATURES), "fc1.bias": rows(24)},
            (
                "inputs do not fit the model: missing [], unknown ['fc1.bias']; "
                "the model's inputs are ['x']"
            ),
        ),
    ],
)
def test_data_that_does_not_fit(processor: str, feeds: dict[str, Any], message: str) -> None:
    session = coexec.compile(coexec.load(network()), [processor])
    with pytest.raises(DataError) as caught:
        session.run(feeds)
    assert str(caught.value) == message
    good = session.run({"x": rows(2, FEATURES)})  # a refused run leaves the session usable
    assert good["y"].shape == (2, CLASSES)


@pytest.mark.parametrize("feeds", [rows(2, FEATURES), None, "x"])
def test_inputs_without_names_are_refused(feeds: Any) -> None:
    session = coexec.compile(coexec.load(network()), ["reference"])
    wanted = f"inputs are arrays by name, not {type(feeds).__name__}; the model's inputs are ['x']"
    for run in (session.run, trainer().predict):
        with pytest.raises(DataError, match=re.escape(wanted)):
            run(feeds)


def test_rows_of_different_lengths_are_no_array() -> None:
    session = coexec.compile(coexec.load(network()), ["reference"])
    with pytest.raises(DataError, match=r"input 'x' is no array: .*inhomogeneous"):
        session.run({"x": [[1.0], [1.0, 2.0]]})  # type: ignore[dict-item]


def test_outputs_that_do_not_exist() -> None:
    session = coexec.compile(coexec.load(network()), ["reference"])
    with pytest.raises(DataError, match=re.escape("unknown outputs ['z']; the model has ['y']")):
        session.run({"x": rows(2, FEATURES)}, outputs=["y", "z"])
    with pytest.raises(UsageError, match="outputs is 'y'; it has to be a list of texts"):
        session.run({"x": rows(2, FEATURES)}, outputs="y")


def test_values_that_fit_no_shape() -> None:
    """Numbers that shape the graph are data too."""
    session = coexec.compile(
        coexec.load(parse("g (float[4] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }")),
        ["reference"],
    )
    with pytest.raises(CoexecError, match=r"\(Reshape\)"):
        session.run({"x": rows(4), "s": np.array([3, 3])})
    assert session.run({"x": rows(4), "s": np.array([2, 2])})["y"].shape == (2, 2)


def test_two_inputs_that_disagree_on_a_symbolic_dimension() -> None:
    proto = parse("g (float[N,2] a, float[N,2] b) => (float[N,2] y) { y = Add(a, b) }")
    session = coexec.compile(coexec.load(proto), ["reference"])
    with pytest.raises(CoexecError, match=r"'N' is already 3 \(input 'a'\)"):
        session.run({"a": rows(3, 2), "b": rows(4, 2)})


# Data and labels of Trainer.step


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": rows(8, 5)}, "input 'x' wants shape Nx12, the data has 8x5"),
        (
            {"labels": np.full(8, 4)},
            "labels range from 4 to 4, but the model has 4 classes (0 to 3)",
        ),
        (
            {"labels": np.arange(8) % 4 - 1},
            "labels range from -1 to 2, but the model has 4 classes (0 to 3)",
        ),
        ({"labels": np.zeros(7, np.int64)}, "input 'labels' wants shape 8, the data has 7"),
        ({"labels": np.zeros((8, 1), np.int64)}, "input 'labels' wants shape 8, the data has 8x1"),
        ({"labels": rows(8)}, "input 'labels' wants int64, not float32; convert it first"),
        (
            {"labels": np.eye(4, dtype=np.float32)[np.arange(8) % 4]},
            (
                "labels are 8x4, as the output is; this loss wants the number of a class for each "
                "sample: of one-hot labels their argmax over the classes"
            ),
        ),
        ({"labels": np.full(8, "cat")}, "input 'labels' is text; coexec computes on numbers"),
    ],
)
def test_batches_that_do_not_fit(processor: str, changes: dict[str, Any], message: str) -> None:
    learner = trainer(processor)
    good = arrays(8)
    bad = {**good, **changes}
    with pytest.raises(DataError) as caught:
        learner.step({"x": bad["x"]}, bad["labels"])
    assert str(caught.value) == message
    assert learner.steps == 0
    fresh = trainer(processor)
    losses = [t.step({"x": good["x"]}, good["labels"]) for t in (learner, fresh)]
    assert losses[0] == losses[1]  # a refused batch leaves nothing behind


def test_labels_of_other_losses() -> None:
    targets = np.zeros((8, CLASSES), np.float32)
    x = arrays(8)["x"]
    binary = trainer(loss=coexec.losses.BinaryCrossEntropyWithLogits())
    with pytest.raises(DataError, match=re.escape("this loss wants [0, 1]")):
        binary.step({"x": x}, targets + 2)
    regression = trainer(loss=coexec.losses.MeanSquaredError())
    with pytest.raises(DataError, match="labels contain NaN or infinity"):
        regression.step({"x": x}, targets + np.nan)
    with pytest.raises(DataError, match="class_axis 5 does not exist"):
        trainer(loss=coexec.losses.SoftmaxCrossEntropy(class_axis=5)).step(
            {"x": x}, arrays(8)["labels"]
        )


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    "loss", [coexec.losses.SoftmaxCrossEntropy(), coexec.losses.L1()], ids=repr
)
def test_a_batch_without_samples_is_refused(loss: Any, micro_batches: int) -> None:
    learner = trainer(loss=loss, micro_batches=micro_batches)
    with pytest.raises(DataError, match=r"labels are empty: a step needs .* at least one sample"):
        learner.step({"x": rows(0, FEATURES)}, np.zeros(0, np.int64))
    assert learner.steps == 0


def test_micro_batches_that_do_not_divide_the_batch() -> None:
    good = arrays(8)
    with pytest.raises(DataError, match="does not split into 3 micro-batches"):
        trainer(micro_batches=3).step({"x": good["x"]}, good["labels"])


QUANTISED = """q (float[N,4] x) => (float[N,3] y)
    <float[4,3] w = {0,1,2,3,4,5,6,7,8,9,10,11}, float s = {0.1}, int8 z = {0},
     int64[2] flat = {0,-1}>
{
    a = MatMul(x, w)
    b = QuantizeLinear(a, s, z)
    c = Reshape(b, flat)
    y = DequantizeLinear(c, s, z)
}"""


def test_parameters_behind_quantised_values_are_not_left_untrained_silently() -> None:
    learner = coexec.Trainer(
        coexec.load(parse(QUANTISED)),
        coexec.losses.MeanSquaredError(),
        coexec.optim.SGD(0.1),
        ["reference"],
    )
    with pytest.raises(GradientError) as caught:
        learner.step({"x": rows(2, 4)}, rows(2, 3))
    first, *nodes = str(caught.value).splitlines()
    assert first == "the model cannot be differentiated through these nodes:"
    (line,) = nodes
    assert re.match(r"  QuantizeLinear '.*': piecewise constant; quantisation-aware", line)


def test_patterns_that_match_nothing_list_what_there_is() -> None:
    """Before a step: data may take long to read, and plans to make."""
    with pytest.raises(GradientError) as caught:
        trainer(trainable=["head.*"])
    assert str(caught.value) == (
        "--trainable 'head.*' matches no parameter; known: fc1.weight, fc1.bias, bn.scale, "
        "bn.bias, fc2.weight, fc2.bias"
    )


def test_datasets_that_are_inconsistent() -> None:
    with pytest.raises(
        DataError, match=re.escape("arrays differ in length: {'x': 3, 'labels': 2}")
    ):
        Dataset({"x": rows(3, 2)}, np.zeros(2))
    with pytest.raises(DataError, match="the data has no samples"):
        Dataset({"x": rows(0, 2)}, np.zeros(0))


# A loss that is not finite


def values(learner: coexec.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in learner.state().items()}


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_bad_loss_names_step_and_node_and_changes_nothing(
    processor: str, micro_batches: int
) -> None:
    good = arrays(8)
    feeds, labels = {"x": good["x"]}, good["labels"]
    rate = coexec.optim.SGD(1e30, momentum=0.9)
    learner = trainer(processor, optimizer=rate, micro_batches=micro_batches)
    assert np.isfinite(learner.step(feeds, labels))
    before = values(learner)
    for _ in range(2):  # again: nothing of the first failure may stay behind
        with pytest.raises(NonFiniteLoss) as caught:
            learner.step(feeds, labels)
        assert re.match(
            r"the loss is (nan|-?inf) at step 1: the first non-finite value comes from "
            r"\w+ '[\w.]+'; parameters are as before this step. Try a smaller learning rate",
            str(caught.value),
        )
        assert values(learner) == before
        assert learner.steps == 1


def test_the_node_named_is_the_first_with_a_bad_value() -> None:
    proto = parse(
        "g (float[N,3] x) => (float[N,3] y) <float[3] w = {1, 1, 1}> "
        "{ [a] s = Mul(x, w) [b] l = Log(s) [c] e = Exp(l) [d] y = Sub(e, w) }"
    )
    for node, name in zip(proto.graph.node, "abcd", strict=True):
        node.name = name
    learner = coexec.Trainer(
        coexec.load(proto),
        coexec.losses.MeanSquaredError(),
        coexec.optim.SGD(0.1),
        ["opencl"],
    )
    x = np.array([[1, 2, -3]], np.float32)
    with pytest.raises(NonFiniteLoss, match="first non-finite value comes from Log 'b'"):
        learner.step({"x": x}, np.zeros((1, 3), np.float32))
    assert learner.step({"x": abs(x)}, np.zeros((1, 3), np.float32)) > 0


@pytest.mark.parametrize("processor", PROCESSORS)
def test_data_that_is_not_finite_is_named(processor: str) -> None:
    good = arrays(8)
    bad = good["x"].copy()
    bad[3, 2] = np.nan
    learner = trainer(processor)
    learner.step({"x": good["x"]}, good["labels"])
    before = values(learner)
    with pytest.raises(NonFiniteLoss, match="at step 1: input 'x' is not finite"):
        learner.step({"x": bad}, good["labels"])
    assert values(learner) == before


def test_train_keeps_the_state_before_a_bad_loss(model: Path, tmp_path: Path) -> None:
    """The checkpoint after the failure is that of a training which stopped right before it."""
    content = arrays(48)
    content["x"][17, 0] = np.inf
    data = write_data(tmp_path / "bad.npz", **content)
    folder = tmp_path / "checkpoints"
    arguments = ("train", model, "--data", data, "--batch-size", "8", "-p", "reference")
    out = tmp_path / "trained.onnx"
    done = command(*arguments, "--checkpoint", folder, "--out", out)
    text = failed(done)
    match = re.match(r"the loss is nan at step (\d+): input 'x' is not finite", text)
    assert match, text
    step = int(match[1])
    assert 0 < step < 6
    assert not out.exists()
    (kept,) = folder.iterdir()
    checkpoint = load_checkpoint(kept)
    assert checkpoint.steps == step
    assert all(np.isfinite(array).all() for array in checkpoint.state.values())
