"""Every command: help, JSON, files it writes, exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from coexec.session import Session
from coexec.zoo import CATALOG
from tests.pipeline.command import coexec, failed
from tests.pipeline.small import CLASSES, FEATURES, HIDDEN, write_data, write_network
from tests.runtimes import THOROUGH

COMMANDS = ("devices", "run", "train", "zoo")
LINE = re.compile(
    r"(?P<device>\S+) +(?P<what>\S+) +(?P<name>.*?) +(?P<ms>\d+\.\d{3}) ms"
    r" +(?P<flops>[\d.]+|-) GFLOP/s +(?P<bytes>[\d.]+|-) GB/s"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


# Help and exit status


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    done = coexec(command, "--help")
    assert done.status == 0
    assert f"Example: coexec {command} " in re.sub(r"\s+", " ", done.out)


def test_no_arguments_list_the_commands() -> None:
    done = coexec()
    assert done.status == 2
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.out + done.err)


def test_installed_script() -> None:
    script = Path(sys.executable).parent / "coexec"
    run = subprocess.run([script, "zoo", "--json"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stdout.startswith('{"models": {"mlp"')
    failed = subprocess.run([script, "zoo", "nope", "--out", "x.onnx"], check=False)
    assert failed.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["devices"], 0),
        (["zoo"], 0),
        (["nonsense"], 2),
        (["devices", "--nonsense"], 2),
        (["run"], 2),
        (["run", "missing.onnx"], 1),
        (["run", "missing.onnx", "--repeat", "0"], 2),
        (["zoo", "mlp"], 2),
        (["train", "missing.onnx"], 2),
        (["train", "missing.onnx", "--data", "missing.npz"], 1),
    ],
)
def test_exit_status(arguments: list[str], status: int) -> None:
    assert coexec(*arguments).status == status


def test_ctrl_c_exits_with_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupt)
    done = coexec("run", model, "--shape", f"x=2x{FEATURES}", "-p", "reference")
    assert done.status == 130
    assert "Traceback" not in done.err


def test_errors_are_one_line_for_people_and_one_object_for_programs() -> None:
    done = coexec("run", "missing.onnx")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: missing.onnx: no such file\n"
    assert coexec("run", "missing.onnx", "--json").error == {
        "error": "missing.onnx: no such file",
        "kind": "ModelError",
    }


# devices


def test_devices_json() -> None:
    records = coexec("devices", "--json").record["processors"]
    by_name = {record["name"]: record for record in records}
    assert "reference" in by_name
    assert any(name.startswith("opencl") for name in by_name)
    for record in records:
        assert record["available"] is not bool(record["reason"])
        if record["available"]:
            assert record["kind"] in {"cpu", "gpu", "accelerator", "custom"}
            assert record["device"]
            assert record["driver"]
            assert record["compute_units"] >= 1
            assert isinstance(record["unified_memory"], bool)
            assert {"fp16", "fp64", "images", "svm"} <= set(record["features"])


def test_devices_for_people_say_the_same() -> None:
    text = re.sub(r"\s+", " ", coexec("devices").out)
    for record in coexec("devices", "--json").record["processors"]:
        assert record["name"] in text
        expected = record["device"] if record["available"] else record["reason"]
        assert re.sub(r"\s+", " ", expected) in text


# zoo


def test_zoo_lists_and_writes(tmp_path: Path) -> None:
    models = coexec("zoo", "--json").record["models"]
    assert {"lenet5", "mlp", "resnet18", "mobilenetv2", "squeezenet", "gpt_tiny"} <= set(models)
    assert set(models["mlp"]) == {"description", "input_shape", "classes"}
    listed = coexec("zoo").out
    assert all(name in listed for name in models)
    out = tmp_path / "mlp.onnx"
    record = coexec("zoo", "mlp", "--out", out, "--batch", "3", "--classes", "7", "--json").record
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    assert record["name"] == "mlp"
    assert record["out"] == str(out)
    assert record["bytes"] == out.stat().st_size
    sizes = [np.prod(tensor.dims) for tensor in written.graph.initializer]
    assert record["parameters"] == sum(sizes)
    dims = [d.dim_value for d in written.graph.output[0].type.tensor_type.shape.dim]
    assert dims == [3, 7]


@pytest.mark.parametrize("rest", [(), ("--out", "x.onnx")])
def test_an_unknown_model_is_refused_in_a_line_that_names_close_ones(rest: tuple[str, ...]) -> None:
    text = failed(coexec("zoo", "resnet_18", *rest), 2)
    assert text.startswith("no model 'resnet_18' in the zoo; did you mean 'resnet18', ")
    assert text.endswith(f"? coexec zoo lists all {len(CATALOG)}")


def test_zoo_seed_decides_the_weights(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.onnx" for name in "abc"]
    for file, seed in zip(files, ("1", "1", "2"), strict=True):
        assert coexec("zoo", "digits_cnn", "--out", file, "--seed", seed).status == 0
    first, same, other = (file.read_bytes() for file in files)
    assert first == same != other


# run


def test_run_json_and_saved_outputs(model: Path, tmp_path: Path) -> None:
    x = np.load(write_data(tmp_path / "d.npz", 5))["x"]
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.npz"
    results = {}
    for processor in ("opencl", "reference"):
        record = coexec(
            *("run", model, "--input", f"x={tmp_path / 'x.npy'}", "-p", processor),
            *("--repeat", "3", "--save-outputs", out, "--json"),
        ).record
        assert record["processor"].startswith(processor)
        assert record["outputs"] == {"y": {"shape": [5, CLASSES], "dtype": "float32"}}
        assert 0 < record["min_ms"] <= record["median_ms"]
        assert 0 < record["peak_bytes"] <= record["naive_bytes"]
        assert record["repeat"] == 3
        assert record["random_inputs"] == []
        assert record["fallbacks"] == []
        with np.load(out) as saved:
            assert saved.files == ["y"]
            results[processor] = saved["y"]
    np.testing.assert_allclose(results["opencl"], results["reference"], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(results["opencl"], np.zeros_like(results["opencl"]))


def test_run_with_shape_takes_seeded_random_data(model: Path, tmp_path: Path) -> None:
    saved = []
    for name in ("a.npz", "b.npz"):
        done = coexec(
            *("run", model, "--shape", f"x=2x{FEATURES}", "--save-outputs", tmp_path / name),
            "--json",
        )
        assert done.record["random_inputs"] == ["x"]
        assert done.record["outputs"]["y"]["shape"] == [2, CLASSES]
        saved.append(np.load(tmp_path / name)["y"])
    np.testing.assert_array_equal(saved[0], saved[1])


def test_run_for_people(model: Path) -> None:
    done = coexec("run", model, "--shape", f"x=2x{FEATURES}", "-p", "opencl", "-p", "reference")
    assert done.status == 0
    assert f"float32[2x{CLASSES}]" in done.out
    assert "median of runs" in done.out
    assert "device memory" in done.out
    assert f"{model} on " in done.out  # in one line, however long the path
    assert "random data for: x" in done.err


def test_what_a_model_wrongly_says_of_itself_is_a_note(model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = CLASSES + 1
    onnx.save(proto, model)
    done = coexec("run", model, "--shape", f"x=2x{FEATURES}", "-p", "reference", "--json")
    assert done.record["repeat"] == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"note: output 'y' is declared to be Nx{CLASSES + 1}, but the model")


def test_first_processor_named_is_preferred(model: Path) -> None:
    shape = ("--shape", f"x=2x{FEATURES}", "--json")
    first = coexec("run", model, *shape, "-p", "reference", "-p", "opencl").record
    assert first["processor"] == "reference"
    second = coexec("run", model, *shape, "-p", "opencl", "-p", "reference").record
    assert second["processor"].startswith("opencl")


# Traces


def slices(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Slices of a Perfetto file by track with its queues, read by Perfetto's own parser."""
    trace = PerfettoTrace()
    trace.ParseFromString(path.read_bytes())
    names = {}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            name = packet.track_descriptor.name
            # Copies of the host and kernels have clocks of their own, and may seem to overlap.
            names[packet.track_descriptor.uuid] = name.partition(" queue ")[0]
            continue
        event = packet.track_event
        if event.type == TrackEvent.TYPE_COUNTER:
            continue
        track = found[names[event.track_uuid]]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            notes = {
                a.name: a.int_value if a.HasField("int_value") else a.string_value
                for a in event.debug_annotations
            }
            track.append({"name": event.name, "start": packet.timestamp, **notes})
        else:
            assert event.type == TrackEvent.TYPE_SLICE_END
            track[-1]["end"] = packet.timestamp
    return found


def test_run_trace_is_a_perfetto_file(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.pftrace"
    batch = 2
    done = coexec("run", model, "--shape", f"x={batch}x{FEATURES}", "--trace", file, "--json")
    tracks = slices(file)
    assert set(tracks) == {done.record["processor"], "host"}
    assert [event["name"] for event in tracks["host"]].count("run") == 1
    events = tracks[done.record["processor"]]
    assert all(event["end"] >= event["start"] > 0 for event in [*events, *tracks["host"]])
    assert {"launch", "copy"} <= {event["kind"] for event in events}
    copies = [event for event in events if event["kind"] == "copy"]
    assert sum(e["bytes"] for e in copies) == 4 * batch * (FEATURES + CLASSES)
    gemms = [event for event in events if "fc1" in event["node"].split("+")]
    assert sum(event["FLOP"] for event in gemms) >= 2 * batch * FEATURES * HIDDEN


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


def test_debug_prints_one_line_per_launch_and_copy(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.pftrace"
    arguments = ("run", model, "--shape", f"x=2x{FEATURES}", "--json")
    processor = coexec(*arguments, "--trace", file).record["processor"]
    events = slices(file)[processor]
    monkeypatch.setenv("DEBUG", "2")
    done = coexec(*arguments)
    assert done.record["processor"] == processor
    matches = [LINE.fullmatch(line) for line in done.err.splitlines()]
    lines = [match for match in matches if match is not None]
    runs = 2  # the warm-up, in which matrices are brought into their order, too, and one timed run
    assert {line["device"] for line in lines} == {processor}
    timed, warming = lines[-len(events) :], lines[: -len(events)]
    assert sorted(line["name"] for line in timed) == sorted(event["node"] for event in events)
    more = Counter(line["name"] for line in warming) - Counter(line["name"] for line in timed)
    assert len(warming) == len(timed) + more.total()
    assert set(more) <= {"fc1+relu", "fc2"}, "products alone have matrices"
    rates = [line["flops"] for line in lines if "fc1" in line["name"].split("+")]
    assert any(rate not in {"-", "0.0"} for rate in rates)
    summaries = [line for line in done.err.splitlines() if " events, " in line]
    assert len(summaries) == runs


# train


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


def test_names_in_square_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    """What users name is no markup of the terminal library."""
    path = write_network(tmp_path / "net[bold].onnx")
    done = coexec("run", path, "--shape", f"x=2x{FEATURES}", "-p", "reference")
    assert done.status == 0
    assert "net[bold].onnx" in re.sub(r"\s", "", done.out)


def test_ctrl_c_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coexec.cli.run.load", interrupted)
    done = coexec("run", tmp_path / "model.onnx")
    assert (done.status, done.out, done.err) == (130, "", "interrupted\n")
