"""``coexec train``: JSON, options, the file that is written, traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.pipeline.command import coexec
from tests.pipeline.perfetto_slices import slices
from tests.pipeline.small import write_data, write_network
from tests.runtimes import THOROUGH


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def test_train_json(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained.onnx"
    done = coexec(
        *("train", model, "--data", data, "--validation", data, "--epochs", "8"),
        *("--batch-size", "12", "--learning-rate", "0.1", "--out", out, "--json"),
    )
    record = done.record
    assert record["steps"] == 8 * 48 // 12
    assert record["loss_last"] < record["loss_first"]
    assert 0.5 < record["accuracy"] <= 1.0
    assert record["step_ms_median"] > 0
    assert 0 < record["peak_bytes"] <= record["naive_bytes"]
    assert record["out"] == str(out)
    assert record["processor"].startswith("opencl")
    assert record["fallbacks"] == []
    trained = onnx.load(out)
    onnx.checker.check_model(trained, full_check=True)
    before = {t.name: t for t in onnx.load(model).graph.initializer}
    after = {t.name: t for t in trained.graph.initializer}
    assert set(before) == set(after)
    changed = {n for n in before if before[n].raw_data != after[n].raw_data}
    assert changed == set(before)
    batch = trained.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "N"  # the trained file serves any batch size


def test_train_accuracy_is_that_of_the_written_file(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trained.onnx"
    held_out = write_data(tmp_path / "held_out.npz", 31)
    record = coexec(
        *("train", model, "--data", data, "--validation", held_out, "--epochs", "2"),
        *("--processor", THOROUGH[0], "--batch-size", "12", "--out", out, "--json"),
    ).record
    arrays = np.load(held_out)
    np.save(tmp_path / "x.npy", arrays["x"])
    saved = tmp_path / "y.npz"
    assert (
        coexec(
            *("run", out, "--input", f"x={tmp_path / 'x.npy'}", "-p", "reference"),
            *("--save-outputs", saved),
        ).status
        == 0
    )
    right = np.load(saved)["y"].argmax(1) == arrays["labels"]
    assert record["accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "adam", "--schedule", "cosine", "--warmup-steps", "2"],
        ["--optimizer", "adamw", "--weight-decay", "0.1", "--clip-norm", "0.5"],
        ["--schedule", "step", "--label-smoothing", "0.1", "--micro-batches", "3"],
        ["--loss", "cross-entropy", "--momentum", "0", "--trainable", "fc2.*"],
    ],
    ids=lambda options: "-".join(o for o in options if o.startswith("--")),
)
def test_train_options(options: list[str], model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained.onnx"
    record = coexec(
        *("train", model, "--data", data, "--epochs", "6", "--batch-size", "12"),
        *("--processor", THOROUGH[0], *options),
        *("--out", out, "--json"),
    ).record
    assert record["loss_last"] < record["loss_first"]
    before = {t.name: t.raw_data for t in onnx.load(model).graph.initializer}
    after = {t.name: t.raw_data for t in onnx.load(out).graph.initializer}
    changed = {name for name in before if before[name] != after[name]}
    # Running statistics follow the data whatever is trained.
    expected = {n for n in before if n.startswith(("fc2.", "bn.mean", "bn.var"))}
    if "--trainable" in options:
        assert changed == expected
    else:  # normalisation takes fc1's bias away again: only rounding changes it, or nothing does
        assert changed | {"fc1.bias"} == set(before)


def test_train_for_people(model: Path, data: Path, tmp_path: Path) -> None:
    done = coexec(
        *("train", model, "--data", data, "--validation", data, "--epochs", "1"),
        *("--processor", THOROUGH[0], "--out", tmp_path / "trained.onnx"),
    )
    assert done.status == 0
    assert all(word in done.out for word in ("loss", "accuracy", "steps", "memory", "written"))
    assert "epoch 1" in done.err


def test_train_trace_shows_the_phases(model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.pftrace"
    done = coexec(
        *("train", model, "--data", data, "--epochs", "1", "--batch-size", "24"),
        *("--processor", THOROUGH[0], "--trace", file, "--json"),
    )
    tracks = slices(file)
    assert set(tracks) == {done.record["processor"], "host"}
    assert [event["name"] for event in tracks["host"]].count("run") == done.record["steps"]
    events = tracks[done.record["processor"]]
    assert {"forward", "backward", "optimizer"} <= {event["phase"] for event in events}
    optimizer = [e for e in events if e["phase"] == "optimizer" and "Momentum" in e["name"]]
    assert len(optimizer) == done.record["steps"]  # all parameters in one launch
    layers = {part.partition("/")[0] for part in optimizer[0]["node"].split("+")}
    assert layers >= {"fc1", "fc2"}
