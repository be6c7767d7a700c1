"""Flags that make no sense are refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import coexec
from coexec.cli.output import require_writable
from coexec.core.types import Array
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import CLASSES, arrays, write_data, write_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--resume needs --checkpoint DIR: the folder to continue from"),
        (
            ["--loss", "hinge"],
            "--loss 'hinge' is unknown; known: cross-entropy, mse, l1, huber, bce, model",
        ),
        (
            ["--optimizer", "rms"],
            "--optimizer 'rms' is unknown; known: sgd, adam, adamw, rmsprop, adagrad",
        ),
        (
            ["--schedule", "zigzag"],
            "--schedule 'zigzag' is unknown; known: constant, step, linear, cosine, one-cycle",
        ),
        (
            ["--schedule", "one-cycle", "--warmup-steps", "3"],
            "--schedule one-cycle rises by itself: leave out --warmup-steps",
        ),
        (
            ["--optimizer", "adam", "--momentum", "0.9"],
            "--momentum is for --optimizer sgd or rmsprop, not adam",
        ),
        (
            ["--optimizer", "adagrad", "--optimizer-state", "8bit"],
            "--optimizer-state 8bit is for --optimizer sgd or adam or adamw, not adagrad",
        ),
        (["--learning-rate", "0"], "--learning-rate must be above 0, not 0.0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0, not nan"),
        (["--label-smoothing", "1"], "--label-smoothing must be in [0, 1), not 1.0"),
        (["--clip-norm", "0"], "--clip-norm must be finite and above 0, not 0.0"),
        (["--clip-value", "inf"], "--clip-value must be finite and above 0, not inf"),
        (
            ["--class-weights", "1,x"],
            "--class-weights '1,x': numbers between commas are wanted",
        ),
        (
            ["--pos-weight", "2"],
            "--pos-weight is for --loss bce, not cross-entropy: 2.0",
        ),
        (
            ["--loss", "mse", "--ignore-index", "0"],
            "--ignore-index is for --loss cross-entropy, not mse: 0",
        ),
        (["--huber-delta", "0"], "--huber-delta must be finite and above 0, not 0.0"),
        (["--huber-delta", "inf"], "--huber-delta must be finite and above 0, not inf"),
        (["--huber-delta", "2"], "--huber-delta is for --loss huber, not cross-entropy: 2.0"),
        (
            ["--patience", "2"],
            "--patience and --keep-best go by the loss on --validation FILE.npz",
        ),
        (
            ["--keep-best", "--validate-every", "0", "--validation", "data.npz"],
            "--patience and --keep-best compare evaluations: --validate-every 0 makes one alone",
        ),
        (
            ["--loss-output", "z"],
            "the loss is to judge output 'z'; there are: y",
        ),
        (
            ["--rate-of", "fc1.*"],
            "--rate-of 'fc1.*': WHAT=FACTOR is wanted, such as 'backbone.*=0.1'",
        ),
        (
            ["--rate-of", "fc1.*=x"],
            "--rate-of 'fc1.*=x': WHAT=FACTOR is wanted, such as 'backbone.*=0.1'",
        ),
        (["--adapt"], "--adapt needs --processors A,B: what it may plan with"),
        (["--policy", "heft"], "--policy needs --processors A,B: what it plans with"),
        (["--memory-lossy"], "--memory-lossy needs --memory: the budget that it helps to keep"),
        (["--checkpoint-every", "5"], "--checkpoint-every needs --checkpoint DIR: where they go"),
        (["--momentum", "1.5"], "--momentum must be in [0, 1), not 1.5"),
        (["--weight-decay", "-0.1"], "--weight-decay must be at least 0, not -0.1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_flags_of_train(flags: list[str], message: str, model: Path, data: Path) -> None:
    assert failed(command("train", model, "--data", data, *flags), 2) == message


@pytest.mark.parametrize("command_line", ["train m.onnx --data d.npz", "zoo mlp --out m.onnx"])
def test_seeds_below_0_are_refused(command_line: str) -> None:
    done = command(*command_line.split(), "--seed", "-1")
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for '--seed'" in done.err


@pytest.mark.parametrize("flag", ["--batch", "--classes"])
def test_models_of_the_zoo_have_samples_and_classes(flag: str, tmp_path: Path) -> None:
    out = tmp_path / "mlp.onnx"
    done = command("zoo", "mlp", "--out", out, flag, "0")
    assert done.status == 2
    assert f"Invalid value for '{flag}'" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "x=axb"], "--shape x=axb: write it as x=1x3x224x224"),
        (["--shape", "x"], "--shape 'x': write it as --shape NAME=VALUE"),
        (["--shape", "x=2x12", "--shape", "x=3x12"], "--shape names 'x' twice"),
        (["--input", "x.npy"], "--input 'x.npy': write it as --input NAME=VALUE"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_flags_of_run(flags: list[str], message: str, model: Path) -> None:
    assert failed(command("run", model, *flags), 2) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "z=2x12"], "no input is named 'z'; the model's inputs are 'x'"),
        (["--shape", "x=2x13"], "input 'x' is [N, 12], given 2x13: dimension 1 must be 12"),
        (["--shape", "x=2"], "input 'x' is [N, 12], given 2: the rank differs"),
        (["--shape", "x=-2x12"], "input 'x': negative dimension in -2x12"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_shapes_that_do_not_fit_the_model(flags: list[str], message: str, model: Path) -> None:
    assert failed(command("run", model, *flags)) == message


def test_a_model_without_a_plan_says_how_to_write_one(model: Path) -> None:
    text = failed(command("run", model, "--shape", "x=2x12", "--plan", model))
    assert text == (
        "the model carries no plan (no device configuration 'coexec'); "
        "coexec plan --save writes one"
    )


def test_an_open_shape_asks_for_the_flag(model: Path) -> None:
    text = failed(command("run", model), 2)
    assert text == "open shapes (x: N x 12); give sizes for them, as in --shape x=1x12"
    assert command("run", model, "--shape", "x=1x12", "-p", "reference").status == 0


OPEN = """
<ir_version: 10, opset_import: ["" : 20]>
open (float[N, 6] a, float[?, C, 2] b, float[2, 3] c, float[] d) => (float[N, 6] y)
{
  e = ReduceSum <keepdims = 0> (b)
  f = ReduceSum <keepdims = 0> (c)
  g = Add (e, f)
  h = Add (g, d)
  y = Add (a, h)
}
"""


def test_all_open_shapes_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "open.onnx"
    onnx.save(onnx.parser.parse_model(OPEN), file)
    text = failed(command("run", file), 2)
    assert text == (
        "open shapes (a: N x 6, b: ? x C x 2, d: of any shape); give sizes for them, as in "
        "--shape a=1x6 --shape b=1x1x2 --shape d=..."
    )
    known = ("--shape", "d=1")
    text = failed(command("run", file, *known, "--shape", "a=3x6"), 2)
    assert text.endswith("as in --shape b=1x1x2")
    text = failed(command("profile", file, *known, "--batch-size", "4"), 2)
    assert text == "open shapes (b: ? x C x 2); give sizes for them, as in --shape b=4x1x2"
    shapes = ("--shape", "a=1x6", "--shape", "b=1x1x2")
    assert command("run", file, *known, *shapes, "-p", "reference").status == 0


def test_a_batch_larger_than_the_data(model: Path, data: Path) -> None:
    text = failed(command("train", model, "--data", data, "--batch-size", "49"))
    assert text == "--batch-size 49 exceeds the 48 samples of the data"


def test_trainable_that_matches_nothing(model: Path, data: Path) -> None:
    text = failed(command("train", model, "--data", data, "--trainable", "conv*"))
    assert text.startswith("--trainable 'conv*' matches no parameter; known: fc1.weight, fc1.bias")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step would be the failure of the test."""

    def step(*_arguments: object) -> float:
        raise AssertionError("training began")

    monkeypatch.setattr(coexec.Trainer, "step", step)


@pytest.mark.usefixtures("no_training")
def test_outputs_that_cannot_be_written_fail_before_training(
    model: Path, data: Path, tmp_path: Path
) -> None:
    train = ("train", model, "--data", data)
    missing = tmp_path / "missing"
    text = failed(command(*train, "--out", missing / "out.onnx"), 2)
    assert text == f"--out {missing / 'out.onnx'}: the folder {missing} does not exist"
    assert failed(command(*train, "--out", tmp_path), 2) == (
        f"--out {tmp_path} is a folder; name a file"
    )
    assert "does not exist" in failed(command(*train, "--trace", model / "t.pftrace"), 2)
    text = failed(command(*train, "--checkpoint", model), 2)
    assert text == f"--checkpoint {model}: cannot make the folder: File exists"
    text = failed(command("run", model, "--save-outputs", missing / "y.npz"), 2)
    assert text.startswith("--save-outputs ")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
@pytest.mark.usefixtures("no_training")
def test_a_folder_that_takes_no_files_fails_before_training(model: Path, data: Path) -> None:
    """Not a matter of permissions: even root cannot make a file in /proc."""
    text = failed(command("train", model, "--data", data, "--out", "/proc/out.onnx"), 2)
    assert text.startswith("--out /proc/out.onnx: cannot write in /proc: ")
    require_writable(data, "--out")  # an existing file is no obstacle


@pytest.mark.usefixtures("no_training")
def test_validation_that_does_not_fit_fails_before_training(
    model: Path, data: Path, tmp_path: Path
) -> None:
    other = write_data(tmp_path / "other.npz", x=None, image=arrays(48)["x"])
    text = failed(command("train", model, "--data", data, "--validation", other))
    assert "missing ['x'], unknown ['image']" in text


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.full(48, CLASSES),
            (
                f"held-out data: labels range from {CLASSES} to {CLASSES}, but the model has "
                f"{CLASSES} classes (0 to {CLASSES - 1})"
            ),
        ),
        (np.zeros((48, 2), int), "labels of the held-out data are int64[48x2], not int64[48]"),
        (np.zeros(48), "labels of the held-out data are float64[48], not int64[48]"),
    ],
    ids=["range", "shape", "type"],
)
def test_held_out_labels_that_do_not_fit_fail_before_training(
    labels: Array, message: str, model: Path, data: Path, tmp_path: Path
) -> None:
    other = write_data(tmp_path / "other.npz", labels=labels)
    assert failed(command("train", model, "--data", data, "--validation", other)) == message


def test_no_progress_is_shown_of_a_training_that_does_not_begin(
    model: Path, tmp_path: Path
) -> None:
    other = write_data(tmp_path / "other.npz", labels=np.full(48, -1))
    done = command("train", model, "--data", other, "-p", "reference")
    assert failed(done).startswith("labels range from -1 to -1")
    assert "nan" not in done.err
    assert "epoch" not in done.err
