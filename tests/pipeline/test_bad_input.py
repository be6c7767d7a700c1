"""What users get wrong ends in one clear message, before anything is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyopencl as cl
import pytest

import coexec
from coexec.base.disk import write_atomically
from coexec.base.errors import (
    CheckpointError,
    CoexecError,
    DataError,
    GradientError,
    NonFiniteLoss,
    ProcessorError,
    SaveError,
)
from coexec.base.npz import read_npy
from coexec.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from coexec.cli.output import require_writable
from coexec.core.events import Event, Trace
from coexec.data import Dataset, load_npz
from coexec.processors import find
from coexec.processors.opencl import discover
from coexec.report.perfetto_trace import write_perfetto
from tests.graphs import parse
from tests.pipeline.command import Done, finish, python, start
from tests.pipeline.command import coexec as command
from tests.pipeline.small import (
    CLASSES,
    FEATURES,
    arrays,
    network,
    write_data,
    write_network,
)

PROCESSORS = ("reference", "opencl")


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


def failed(done: Done, status: int = 1) -> str:
    """The message of a command that failed, as people see it: one line, nothing on stdout."""
    assert (done.status, done.out) == (status, ""), done
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.err
    return done.err[done.err.index("error: ") :].removeprefix("error: ").strip()


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
            "input 'x' is str32; coexec computes on numbers",
        ),
        (
            {"x": np.full((2, FEATURES), None)},
            "input 'x' is object; coexec computes on numbers",
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


def test_outputs_that_do_not_exist() -> None:
    session = coexec.compile(coexec.load(network()), ["reference"])
    with pytest.raises(DataError, match=re.escape("unknown outputs ['z']; the model has ['y']")):
        session.run({"x": rows(2, FEATURES)}, outputs=["y", "z"])


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
        ({"labels": np.full(8, "cat")}, "input 'labels' is str96; coexec computes on numbers"),
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


def test_micro_batches_that_do_not_divide_the_batch() -> None:
    good = arrays(8)
    with pytest.raises(DataError, match="does not split into 3 micro-batches"):
        trainer(micro_batches=3).step({"x": good["x"]}, good["labels"])
    with pytest.raises(DataError, match="micro_batches must be at least 1, not 0"):
        trainer(micro_batches=0)


def test_patterns_that_match_nothing_list_what_there_is() -> None:
    good = arrays(8)
    with pytest.raises(GradientError) as caught:
        trainer(trainable=["head.*"]).step({"x": good["x"]}, good["labels"])
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
    with pytest.raises(NonFiniteLoss, match="at step 1: input or parameter 'x' is not finite"):
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
    match = re.match(r"the loss is nan at step (\d+): input or parameter 'x' is not finite", text)
    assert match, text
    step = int(match[1])
    assert 0 < step < 6
    assert not out.exists()
    (kept,) = folder.iterdir()
    checkpoint = load_checkpoint(kept)
    assert checkpoint.steps == step
    assert all(np.isfinite(array).all() for array in checkpoint.state.values())


# Processors


def test_unknown_processors_list_the_known_ones(model: Path) -> None:
    shape = ("--shape", f"x=2x{FEATURES}")
    for spec in ("tpu", "OpenCL", "opencl:nonsense", "opencl:pocl:77"):
        text = failed(command("run", model, *shape, "-p", spec))
        assert repr(spec) in text
        assert re.search(r"known( on this machine)?: .*opencl:", text)
    with pytest.raises(ProcessorError, match=r"option 'cores=1' is not known"):
        coexec.compile(coexec.load(network()), ["reference?cores=1"])
    with pytest.raises(CoexecError, match=re.escape("processors is a list of specs: ['opencl']")):
        coexec.compile(coexec.load(network()), "opencl")


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyOpenCL does where the loader finds no driver."""

    def get_platforms() -> list[cl.Platform]:
        raise cl.LogicError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    monkeypatch.setattr(discover, "devices", discover.devices.__wrapped__)
    monkeypatch.setattr("coexec.processors.opencl.plugin.devices", discover.devices)
    monkeypatch.setattr(find, "open_processor", find.open_processor.__wrapped__)
    monkeypatch.setattr("coexec.api.open_processor", find.open_processor)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("spec", ["opencl", "opencl:pocl"])
def test_no_opencl_runtime_says_what_to_install(model: Path, spec: str) -> None:
    text = failed(command("run", model, "--shape", f"x=2x{FEATURES}", "-p", spec))
    assert text.startswith(
        "no OpenCL runtime on this machine: pip install pocl-binary-distribution"
    )
    for hint in ("driver of your GPU", "pocl-opencl-icd", "docs/android.md"):
        assert hint in text


@pytest.mark.usefixtures("no_runtime")
def test_without_opencl_the_reference_still_runs(model: Path) -> None:
    shape = ("--shape", f"x=2x{FEATURES}", "--json")
    assert command("run", model, *shape, "-p", "reference").record["processor"] == "reference"
    records = command("devices", "--json").record["processors"]
    assert [(r["name"], r["available"]) for r in records] == [
        ("opencl", False),
        ("reference", True),
    ]
    assert "no OpenCL runtime" in records[0]["reason"]


def test_a_loader_that_fails_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_platforms() -> list[cl.Platform]:
        raise cl.LogicError("clGetPlatformIDs failed: OUT_OF_HOST_MEMORY")

    monkeypatch.setattr(cl, "get_platforms", get_platforms)
    with pytest.raises(ProcessorError, match=r"the OpenCL loader failed: .*OUT_OF_HOST_MEMORY"):
        discover.devices.__wrapped__()


# Disks

Save = Callable[[Path], object]
SAVES: dict[str, Save] = {
    "file": lambda path: write_atomically(path, lambda file: file.write(b"new")),
    "trained model": lambda path: trainer().save(path),
    "bundle": lambda path: _session().save(path),
    "trace": lambda path: write_perfetto(Trace([Event("e", "launch", "cpu", 1, 2)]), path),
}


def _session() -> coexec.session.Session:
    return coexec.compile(coexec.load(network(), {"x": (2, FEATURES)}), ["opencl"])


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("what", SAVES)
def test_a_full_disk_leaves_the_old_file(
    what: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, no_space)
        with pytest.raises(SaveError) as caught:
            SAVES[what](path)
    assert str(caught.value) == (
        f"cannot write {path}: No space left on device; the previous file, if any, is intact"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    SAVES[what](path)  # with space again it is written
    assert path.read_bytes() != b"old"


def test_a_full_disk_keeps_older_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checkpoint(steps: int) -> Checkpoint:
        return Checkpoint({"w": np.full(5, steps)}, steps, "same", {})

    kept = save_checkpoint(tmp_path, checkpoint(1))

    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SaveError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert list(tmp_path.iterdir()) == [kept]
    assert load_checkpoint(kept).state["w"].tolist() == [1] * 5


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
from coexec.cli import main
sys.argv = ["coexec", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file sizes here")
def test_training_onto_a_disk_that_fills_up(model: Path, data: Path, tmp_path: Path) -> None:
    """The operating system itself refuses to write more than 1,500 bytes into a file."""
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    arguments = ("train", model, "--data", data, "--epochs", "1", "--out", out, "-p", "reference")
    text = failed(python(LIMITED, arguments))
    assert text == f"cannot write {out}: File too large; the previous file, if any, is intact"
    assert out.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == sorted([model, data, out])


# Flags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--resume needs --checkpoint DIR: the folder to continue from"),
        (
            ["--loss", "hinge"],
            "--loss 'hinge' is unknown; known: cross-entropy, mse, l1, huber, bce",
        ),
        (["--optimizer", "rms"], "--optimizer 'rms' is unknown; known: sgd, adam, adamw"),
        (["--schedule", "zigzag"], "--schedule 'zigzag' is unknown; known: constant, step, cosine"),
        (["--learning-rate", "0"], "--learning-rate must be above 0, not 0.0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0, not nan"),
        (["--label-smoothing", "1"], "--label-smoothing must be in [0, 1), not 1.0"),
        (["--clip-norm", "0"], "--clip-norm must be above 0, not 0.0"),
        (["--momentum", "1.5"], "--momentum must be in [0, 1), not 1.5"),
        (["--weight-decay", "-0.1"], "--weight-decay must be at least 0, not -0.1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_flags_of_train(flags: list[str], message: str, model: Path, data: Path) -> None:
    assert failed(command("train", model, "--data", data, *flags), 2) == message


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


def test_an_open_shape_asks_for_the_flag(model: Path) -> None:
    text = failed(command("run", model), 2)
    assert text == "input 'x' has an open shape; give --shape x=..."


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


# Data files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, r"missing \['x'\], unknown \[\]"),
        ({"labels": None}, r"has no array 'labels'; it has \['x'\]"),
        ({"extra": np.zeros(48)}, r"missing \[\], unknown \['extra'\]"),
        ({"x": rows(48, 7)}, "input 'x' wants shape Nx12, the data has 32x7"),
        ({"x": np.zeros((48, FEATURES), np.int32)}, "input 'x' wants float32, not int32"),
        ({"x": rows(47, FEATURES)}, "arrays differ in length"),
        ({"labels": np.array(3)}, r"\['labels'\] have no sample axis"),
        ({"labels": np.full(48, 9)}, "labels range from 9 to 9, but the model has 4 classes"),
        ({"labels": np.zeros((48, 2), int)}, "input 'labels' wants shape 32, the data has 32x2"),
        ({"x": rows(0, FEATURES), "labels": np.zeros(0, int)}, "the data has no samples"),
        ({"x": np.array([None] * 48)}, "Object arrays cannot be loaded"),
    ],
)
def test_training_data_that_does_not_fit(
    changes: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "bad.npz", **changes)
    text = failed(command("train", model, "--data", data, "-p", "reference"))
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "No data left in file"),
        (b"this is no archive", "pickle"),
        (b"PK\x03\x04" + bytes(50), "not a zip file"),
        (b"\x93NUMPY\x01\x00", "EOF"),
    ],
)
def test_files_that_hold_no_arrays(
    content: bytes | None, reason: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    text = failed(command("train", model, "--data", path))
    assert text.startswith(f"{path} is not a readable .npz file: ")
    assert reason.lower() in text.lower()
    text = failed(command("run", model, "--input", f"x={path}"))
    assert text.startswith(f"--input x={path}: {path} is not a readable .npy file: ")
    assert reason.lower() in text.lower()


def test_one_array_for_an_archive_and_an_archive_for_one_array(
    model: Path, data: Path, tmp_path: Path
) -> None:
    single = tmp_path / "x.npy"
    np.save(single, rows(2, FEATURES))
    assert failed(command("train", model, "--data", single)) == (
        f"{single} is not a readable .npz file: it holds one bare array"
    )
    assert failed(command("run", model, "--input", f"x={data}")) == (
        f"--input x={data}: {data} is an archive; a .npy file with one array is wanted"
    )


def test_input_files_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, rows(2, 5))
    text = failed(command("run", model, "--input", f"x={file}"))
    assert text == "input 'x' is [N, 12], given 2x5: dimension 1 must be 12"
    np.save(file, np.zeros((2, FEATURES), np.int64))
    text = failed(command("run", model, "--input", f"x={file}", "-p", "reference"))
    assert text == "input 'x' wants float32, not int64; convert it first"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(len(changed)))
        match rng.integers(3):
            case 0:
                changed[position] = int(rng.integers(256))
            case 1:
                changed[position] ^= 1 << int(rng.integers(8))
            case _:
                del changed[max(position, 1) :]
    return bytes(changed)


def test_mutated_array_files_end_in_an_error_or_a_result(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    plain, packed, single = (tmp_path / name for name in ("plain", "packed", "single"))
    np.savez(plain.open("wb"), **arrays(6))
    np.savez_compressed(packed.open("wb"), **arrays(6))
    np.save(single.open("wb"), arrays(6)["x"])
    kept = save_checkpoint(tmp_path, Checkpoint({"w": np.arange(6.0)}, 3, "same", {}))
    readers: list[tuple[Path, Callable[[Path], object], type[CoexecError]]] = [
        (plain, load_npz, DataError),
        (packed, load_npz, DataError),
        (single, read_npy, DataError),
        (kept, load_checkpoint, CheckpointError),
    ]
    file = tmp_path / "mutated"
    for path, read, expected in readers:
        content = path.read_bytes()
        read(path)
        refused = 0
        for _ in range(400):
            file.write_bytes(mutated(content, rng))
            with contextlib.suppress(expected):
                read(file)
                continue
            refused += 1
        assert refused > 200


def test_a_process_of_its_own_exits_with_the_status(tmp_path: Path) -> None:
    """No traceback on a terminal either, and none of the interpreter's own exit codes."""
    done = finish(start("run", tmp_path / "none.onnx"))
    assert failed(done) == f"{tmp_path / 'none.onnx'}: no such file"
    assert sys.exc_info() == (None, None, None)
