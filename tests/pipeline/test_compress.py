"""``coexec compress`` from file to file, and the techniques from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import coexec
from coexec.base.errors import DataError, ModelError, UsageError
from coexec.compression.effect import accuracy, agreement, size_of
from coexec.compression.techniques import Settings, compress
from coexec.core.types import Array
from coexec.frontend.export import save_model
from coexec.passes.float16 import Conversion
from coexec.passes.prune_channels import PrunedGroup
from coexec.processors.find import quantise
from coexec.zoo.lenet import digits_cnn
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed

SAMPLES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and data that it labels itself: it has no wrong answers."""
    folder = tmp_path_factory.mktemp("compress")
    model = digits_cnn(width=8)
    save_model(model, folder / "model.onnx")
    x = np.random.default_rng(0).standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32)
    labels = logits(folder / "model.onnx", x).argmax(1)
    np.savez(folder / "data.npz", x=x, labels=labels)
    return folder


def logits(model: Path, x: Array) -> Array:
    """What ONNX Runtime makes of a file."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def run(folder: Path, *arguments: str) -> dict[str, object]:
    """The command's JSON on the model and its data."""
    data = ("--data", folder / "data.npz", "--validation", folder / "data.npz")
    out = ("--out", folder / "small.onnx", "-p", "reference", "--json")
    return command("compress", folder / "model.onnx", *arguments, *data, *out).record


def test_eight_bits_are_a_quarter_of_the_size_and_answer_nearly_alike(folder: Path) -> None:
    record = run(folder, "-t", "int8")
    before, after, effect = (record[key] for key in ("before", "after", "effect"))
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert isinstance(effect, dict)
    assert after["weight_bytes"] < 0.32 * before["weight_bytes"]
    assert after["file_bytes"] == (folder / "small.onnx").stat().st_size
    assert (effect["samples"], effect["accuracy_before"]) == (SAMPLES, 1.0)
    # All answers are those of the model itself: what is right is what agrees.
    assert effect["accuracy_after"] == effect["agreement"] > 0.85
    saved = onnx.load(folder / "small.onnx")
    kinds = {tensor.data_type for tensor in saved.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8}
    assert {opset.domain for opset in saved.opset_import} == {""}
    # Batches of any size still fit, and ONNX Runtime gives the same answers as the reference.
    x = np.load(folder / "data.npz")["x"]
    found, original = (logits(folder / name, x) for name in ("small.onnx", "model.onnx"))
    assert agreement(found, original) == pytest.approx(effect["agreement"], abs=0.05)


def test_float16_is_half_of_the_size_and_answers_alike(folder: Path) -> None:
    record = run(folder, "-t", "prune:0.25", "-t", "float16")
    before, after, effect = (record[key] for key in ("before", "after", "effect"))
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert isinstance(effect, dict)
    pruned = run(folder, "-t", "prune:0.25")
    single, agreed = pruned["after"], pruned["effect"]
    assert isinstance(single, dict)
    assert isinstance(agreed, dict)
    # Batch normalisations are folded, too.
    assert after["parameters"] < single["parameters"] < before["parameters"]
    assert after["weight_bytes"] == 2 * after["parameters"]
    assert effect["agreement"] == pytest.approx(agreed["agreement"], abs=0.05)


def test_onnx_runtime_runs_the_file_in_float16(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    smaller, (applied,) = compress(coexec.load(folder / "model.onnx"), ["float16"])
    save_model(smaller, path)
    (converted,) = applied.changes
    assert isinstance(converted, Conversion)
    assert (converted.kept, converted.casts) == ((), 2)
    saved = onnx.load(path)
    onnx.checker.check_model(saved, full_check=True)
    kinds = {tensor.data_type for tensor in saved.graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert saved.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    # Batches of any size still fit.
    x = np.load(folder / "data.npz")["x"][:3]
    found, original = logits(path, x), logits(folder / "model.onnx", x)
    np.testing.assert_allclose(found, original, atol=1e-2)
    assert np.any(found != original)
    mine = coexec.compile(coexec.load(path), ["reference"]).run({"x": x})
    np.testing.assert_allclose(mine["y"], original, atol=1e-2)


def test_float16_comes_last(folder: Path) -> None:
    with pytest.raises(
        UsageError, match="float16 comes last: all else works on weights of float32"
    ):
        compress(coexec.load(folder / "model.onnx"), ["float16", "svd"])


def test_a_model_in_8_bits_is_not_quantised_again(folder: Path) -> None:
    settings = Settings(calibration={"x": np.load(folder / "data.npz")["x"]})
    quantised, _ = compress(coexec.load(folder / "model.onnx"), ["int8"], settings)
    with pytest.raises(UsageError, match=r"in 8 bits already \(QuantizeLinear '"):
        compress(quantised, ["int8"], settings)


def test_linear_layers_in_8_bits_find_their_ranges_in_each_run(
    folder: Path, tmp_path: Path
) -> None:
    """No calibration data; the same answers as ONNX Runtime's, and nearly those of floats."""
    out = tmp_path / "dynamic.onnx"
    checked = ("--validation", folder / "data.npz", "-p", "reference", "--json")
    done = command(
        "compress", folder / "model.onnx", "-t", "int8-dynamic", "--out", out, *checked
    ).record
    saved = onnx.load(out)
    kinds = [node.op_type for node in saved.graph.node]
    linear = kinds.count("MatMulInteger")
    assert linear > 0
    assert "ConvInteger" not in kinds
    (applied,) = done["techniques"]
    changes = {each["op_type"]: (each["nodes"], each["in_floats"]) for each in applied["changes"]}
    assert changes == {"MatMul": (linear, 0), "Conv": (0, kinds.count("Conv"))}
    assert done["after"]["weight_bytes"] < done["before"]["weight_bytes"]
    assert done["effect"]["accuracy_after"] == done["effect"]["agreement"] > 0.9
    x = np.load(folder / "data.npz")["x"]
    (mine,) = coexec.compile(coexec.load(out), ["reference"]).run({"x": x}).values()
    np.testing.assert_allclose(mine, logits(out, x), atol=1e-4)
    assert np.any(mine != logits(folder / "model.onnx", x))


def test_what_stays_in_floats_is_told(folder: Path, tmp_path: Path) -> None:
    done = command(
        "compress",
        *(folder / "model.onnx", "-t", "int8-dynamic", "--out", tmp_path / "dynamic.onnx"),
    )
    (line,) = (line for line in done.out.splitlines() if line.startswith("int8-dynamic"))
    assert "in 8 bits: " in line
    assert line.endswith(" Conv")
    assert "; in floats: " in line


@pytest.mark.parametrize("again", ["int8", "int8-dynamic"])
def test_a_dynamic_model_in_8_bits_is_not_quantised_again(folder: Path, again: str) -> None:
    settings = Settings(calibration={"x": np.load(folder / "data.npz")["x"]})
    quantised, _ = compress(coexec.load(folder / "model.onnx"), ["int8-dynamic"])
    with pytest.raises(UsageError, match=r"in 8 bits already \(DynamicQuantizeLinear '"):
        compress(quantised, [again], settings)


def test_what_grows_by_less_than_half_a_per_cent_is_no_negative_zero(folder: Path) -> None:
    data = ("--data", folder / "data.npz", "--out", folder / "small.onnx", "-p", "reference")
    done = command("compress", folder / "model.onnx", "-t", "int8", *data)
    assert done.status == 0, done.err
    assert " -0%" not in done.out


def test_the_size_of_a_file_is_that_of_the_files_beside_it_too(
    folder: Path, tmp_path: Path
) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin")
    size = sum((tmp_path / name).stat().st_size for name in ("m.onnx", "m.bin"))
    # Written over itself: what it was before is told all the same.
    options = ("-t", "prune:0.5", "--out", tmp_path / "m.onnx", "--json")
    record = command("compress", tmp_path / "m.onnx", *options).record
    assert record["before"]["file_bytes"] == size
    assert record["after"]["file_bytes"] == (tmp_path / "m.onnx").stat().st_size < size


def test_techniques_follow_each_other_and_each_says_what_it_did(folder: Path) -> None:
    record = run(folder, "-t", "prune:0.5", "-t", "svd:0.6", "--multiple", "4")
    techniques = record["techniques"]
    assert isinstance(techniques, list)
    assert [each["technique"] for each in techniques] == ["prune:0.5", "svd:0.6"]
    pruned, factorised = (each["changes"] for each in techniques)
    assert [(c["nodes"], c["before"], c["after"]) for c in pruned] == [
        (["conv1"], 8, 4),
        (["conv2"], 8, 4),
        (["conv3"], 16, 8),
        (["fc1"], 128, 64),
        (["fc2"], 10, 10),
    ]
    assert "output 'y'" in pruned[-1]["reason"]
    assert all(change["share"] <= 0.6 for change in factorised)
    before, after = record["before"], record["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    for key in ("parameters", "weight_bytes", "file_bytes", "flop", "moved_bytes"):
        assert after[key] < 0.6 * before[key]


def test_a_pruned_model_trains_on(folder: Path) -> None:
    run(folder, "-t", "prune:0.25")
    trainer = coexec.Trainer(
        coexec.load(folder / "small.onnx", {"x": (8, 1, 8, 8)}),
        loss=coexec.losses.SoftmaxCrossEntropy(),
        optimizer=coexec.optim.SGD(0.05),
        processors=["reference"],
    )
    data = np.load(folder / "data.npz")
    losses = [trainer.step({"x": data["x"][:8]}, data["labels"][:8]) for _ in range(3)]
    assert losses[-1] < losses[0]


def test_what_people_read(folder: Path) -> None:
    out = ("--out", folder / "small.onnx")
    done = command("compress", folder / "model.onnx", "-t", "prune:0.5", *out)
    assert done.status == 0
    assert "fc2: output 'y' of the model has them" in " ".join(done.out.split())
    assert "MFLOP a sample" in done.out


def test_wrong_labels_leave_what_stood_there_before(folder: Path) -> None:
    out = folder / "kept.onnx"
    out.write_bytes(b"before")
    with np.load(folder / "data.npz") as data:
        np.savez(folder / "wrong.npz", **{**data, "labels": data["labels"] + 10})
    wrong = ("--validation", folder / "wrong.npz")
    found = failed(command("compress", folder / "model.onnx", "-t", "svd", *wrong, "--out", out))
    assert found.startswith("labels range from 1")
    assert out.read_bytes() == b"before"


def test_the_model_given_stays_as_it_is() -> None:
    model = coexec.load(digits_cnn(width=8))
    before = size_of(model, {"x": (1, 1, 8, 8)})
    smaller, applied = compress(model, ["prune:0.5"], Settings(multiple=1))
    assert all(isinstance(change, PrunedGroup) for change in applied[0].changes)
    assert size_of(model, {"x": (1, 1, 8, 8)}) == before
    assert size_of(smaller, {"x": (1, 1, 8, 8)}).flop < before.flop


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--technique is missing: one or more of prune:0.3, svd:0.5, svd-energy:0.9, int8"),
        (["-t", "magic"], "technique 'magic' is unknown; known: prune ("),
        (["-t", "svd:1.5"], "technique 'svd:1.5': the share lies between 0 and 1, as in svd:0.5"),
        (["-t", "prune:x"], "technique 'prune:x': the share lies between 0 and 1, as in prune:"),
        (["-t", "int8:0.5"], "technique 'int8:0.5': int8 takes no share"),
        (["-t", "int8"], "technique int8 needs typical inputs to measure ranges on: --data"),
        (["-t", "int8", "-t", "prune"], "int8 comes last: nothing else works on quantised"),
        (["-t", "int8-dynamic", "-t", "svd"], "int8-dynamic comes last: nothing else works"),
    ],
)
def test_bad_flags(flags: list[str], message: str, folder: Path) -> None:
    out = folder / "never.onnx"
    found = failed(command("compress", folder / "model.onnx", *flags, "--out", out), 2)
    assert found.startswith(message)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((4, 1, 8, 8), np.float32)}, "'z'"),
        ({"x": np.zeros((4, 1, 9, 9), np.float32)}, "'x'"),
        ({"x": np.zeros((0, 1, 8, 8), np.float32)}, "one at least: {'x': 0}"),
    ],
)
def test_calibration_data_that_do_not_fit_are_named(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compress(coexec.load(digits_cnn(width=8)), ["int8"], Settings(calibration=arrays))


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels are float64\(3,\)"):
        accuracy(np.zeros((3, 10)), np.zeros(3))
    with pytest.raises(DataError, match="labels range from 0 to 10, but the model has 10 classes"):
        accuracy(np.zeros((3, 10)), np.array([0, 5, 10]))
    with pytest.raises(DataError, match="no classes"):
        agreement(np.zeros(3), np.zeros(3))


def test_shares_are_checked_before_anything_is_done() -> None:
    with pytest.raises(UsageError, match="svd:nan"):
        compress(coexec.load(digits_cnn(width=8)), ["prune:0.5", "svd:nan"])


def test_a_quantiser_that_fails_says_so() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime cannot quantise the model"):
        quantise(b"no model", [])
