"""Profiles of real runs: parts add up to the wall time, provenance arrives, commands report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest

from coexec import Trainer, compile, load
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.cli import profile as profile_command
from coexec.cli.output import console
from coexec.cli.profile import show_rows
from coexec.core.events import HOST
from coexec.core.machine import Link, Rates
from coexec.core.machine_file import read_machine
from coexec.processors.find import open_processor
from coexec.processors.opencl.device import HOST_CLOCK, OpenCLDevice
from coexec.profile import (
    Profile,
    ProfileOptions,
    Step,
    profile_session,
    profile_training,
    traced_step,
)
from coexec.report.attribution import CATEGORIES, attribute
from coexec.report.record import RowRecord
from coexec.zoo.catalog import build
from tests.pipeline.command import coexec
from tests.pipeline.small import write_network
from tests.runtimes import DRIVERS, THOROUGH

SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": (256, 784),
    "digits_cnn": (256, 1, 8, 8),
    "lenet5": (8, 1, 28, 28),
    "sensor_cnn": (64, 6, 100),
    "mobilenetv2": (2, 3, 64, 64),
    "resnet18": (2, 3, 32, 32),
}
OPTIONS: dict[str, dict[str, Any]] = {"mobilenetv2": {"image_size": 64}}
SOON_BUILT = ("mlp", "digits_cnn", "lenet5", "sensor_cnn")
CASES = [
    (name, runtime)
    for runtime in DRIVERS
    for name in (SHAPES if runtime in THOROUGH else SOON_BUILT)
]
RATES = Rates(
    {"float32": 300.0}, 40.0, 1.0, 20.0, {"write": Link(10.0, 20.0), "read": Link(10.0, 20.0)}
)
RESIDUAL = 0.02


def model_of(name: str) -> ir.Model:
    return load(build(name, classes=10, **OPTIONS.get(name, {})), {"x": SHAPES[name]})


def trainer_of(name: str, runtime: str) -> Trainer:
    return Trainer(model_of(name), SoftmaxCrossEntropy(), SGD(1e-3), [runtime])


def batch_of(name: str, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x = rng.standard_normal(SHAPES[name]).astype(np.float32)
    return {"x": x}, rng.integers(0, 10, len(x))


def residual(step: Step) -> float:
    """Categories of every track against a wall time taken independently, as a share of it."""
    start = time.perf_counter_ns()
    _, collect_ns, trace = traced_step(step)
    wall = time.perf_counter_ns() - start - collect_ns
    rates = dict.fromkeys({event.track for event in trace.events if event.track != HOST}, RATES)
    tracks = attribute(trace, rates).tracks
    assert tracks
    for times in tracks.values():
        assert set(times.categories) == set(CATEGORIES)
        assert min(times.categories.values()) >= 0
    return max(abs(sum(times.categories.values()) - wall) / wall for times in tracks.values())


def least_residual(step: Step) -> float:
    """Of a few steps: the machine may do something else between the two clocks."""
    step(None)
    return min(residual(step) for _ in range(3))


@pytest.mark.parametrize(("name", "runtime"), CASES)
def test_parts_of_a_run_add_up_to_its_wall_time(
    name: str, runtime: str, rng: np.random.Generator
) -> None:
    session = compile(model_of(name), [runtime])
    feeds, _ = batch_of(name, rng)
    assert least_residual(lambda trace: session.run(feeds, trace=trace)) < RESIDUAL


@pytest.mark.parametrize(("name", "runtime"), CASES)
def test_parts_of_a_training_step_add_up_to_its_wall_time(
    name: str, runtime: str, rng: np.random.Generator
) -> None:
    trainer = trainer_of(name, runtime)
    feeds, labels = batch_of(name, rng)
    assert least_residual(lambda trace: trainer.step(feeds, labels, trace)) < RESIDUAL


def profiled(name: str, runtime: str, rng: np.random.Generator) -> Profile:
    feeds, labels = batch_of(name, rng)
    rates = {runtime: RATES}
    return profile_training(
        trainer_of(name, runtime), feeds, labels, name, ProfileOptions(steps=2, rates=rates)
    )


@pytest.mark.parametrize("runtime", [*DRIVERS, "reference"])
def test_provenance_reaches_every_kernel(runtime: str, rng: np.random.Generator) -> None:
    record = profiled("lenet5", runtime, rng).record
    phases = {row["name"]: row for row in record["phases"]}
    assert {"forward", "backward", "optimizer"} <= set(phases)
    assert phases["backward"]["flop"] > phases["forward"]["flop"] > 0
    layers = {row["name"] for row in record["layers"]}
    known = {str(node.name) for node in build("lenet5").graph}
    assert {"conv1", "conv2", "fc1", "fc2"} <= layers
    # Beside the model's own nodes there are only the loss and copies.
    extra = {name for name in layers - known if "SoftmaxCrossEntropyLoss" not in name}
    assert extra == {"write", "read"}
    weight = next(e for e in record["events"] if "ConvWeightGrad" in e["operator"])
    assert weight["source"] in ("conv1", "conv2")
    assert weight["phase"] == "backward"


def test_a_record_is_plain_json_and_consistent(rng: np.random.Generator) -> None:
    record = profiled("lenet5", THOROUGH[0], rng).record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["residual"] < RESIDUAL
    (times,) = record["categories"].values()
    parts: dict[str, float] = dict(times)  # type: ignore[arg-type]
    assert sum(parts.values()) == pytest.approx(record["wall_ms"], rel=1e-6)
    busy = sum(parts[name] for name in ("compute", "bandwidth", "layout", "transfer", "map"))
    transfers = record["transfers"][THOROUGH[0]]
    busy -= transfers["starting_ms"]
    for rows in (record["operators"], record["layers"], record["phases"]):
        assert sum(row["ms"] for row in rows) == pytest.approx(busy, rel=1e-6)
        assert sum(row["share"] for row in rows) == pytest.approx(1)
    moved = transfers["latency_ms"] + transfers["bandwidth_ms"]
    assert moved == pytest.approx(parts["transfer"], abs=1e-9)
    assert THOROUGH[0] in record["verdict"]
    assert 0 < max(point["bytes"] for point in record["memory"]) <= record["peak_bytes"]
    assert all(sum(point["kinds"].values()) == point["bytes"] for point in record["memory"])
    assert record["allocated_bytes"][THOROUGH[0]] >= record["peak_bytes"]


def test_a_device_without_profiling_events_says_so(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    device = open_processor(THOROUGH[0])
    assert isinstance(device, OpenCLDevice)
    monkeypatch.setattr(device, "clock", HOST_CLOCK)
    record = profiled("lenet5", THOROUGH[0], rng).record
    assert record["processors"][0]["clock"] == "host"
    assert record["residual"] < RESIDUAL
    kernels = [e for e in record["events"] if e["kind"] == "launch"]
    assert len(kernels) > 10
    assert all(event["ms"] > 0 for event in kernels)
    ends = [event["start_ms"] + event["ms"] for event in kernels]
    # One after the other: the host waits for each.
    assert all(e["start_ms"] >= end for e, end in zip(kernels[1:], ends, strict=False))


def test_micro_batches_are_refused(rng: np.random.Generator) -> None:
    feeds, labels = batch_of("mlp", rng)
    model = model_of("mlp")
    loss, optimizer = SoftmaxCrossEntropy(), SGD(1e-3)
    trainer = Trainer(model, loss, optimizer, [THOROUGH[0]], micro_batches=2)
    with pytest.raises(UsageError, match="micro_batches"):
        profile_training(trainer, feeds, labels, "mlp")


def test_profile_of_a_session_needs_a_step() -> None:
    session = compile(model_of("mlp"), [THOROUGH[0]])
    with pytest.raises(UsageError, match="steps"):
        profile_session(
            session, {"x": np.zeros(SHAPES["mlp"], np.float32)}, "mlp", ProfileOptions(0)
        )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rates are measured once for all commands of this file."""
    return tmp_path_factory.mktemp("cache")


def test_the_command_reports_a_training_step(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(cache))
    model = write_network(tmp_path / "model.onnx")
    common = ("profile", model, "--batch-size", "16", "--steps", "2", "-p", THOROUGH[0])
    files = ("--html", tmp_path / "r.html", "--trace", tmp_path / "t.pftrace")
    record = coexec(*common, "--train", "--optimizer", "adam", "--json", *files).record
    assert record["mode"] == "training"
    assert record["options"] == {
        "loss": "cross-entropy",
        "optimizer": "adam",
        "inputs": {"x": [16, 12]},
    }
    assert record["processors"][0]["rates"]["peak_gflops"]["float32"] > 1
    assert (tmp_path / "t.pftrace").stat().st_size > 500
    assert "<html" in (tmp_path / "r.html").read_text()
    shown = coexec(*common).out
    assert f"of a run on {THOROUGH[0]}" in " ".join(shown.split())
    for meaning in CATEGORIES.values():
        assert meaning in shown
    assert "profiling costs" in shown


@pytest.mark.parametrize("columns", [48, 60, 80, 100])
def test_tables_fit_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names give way; headings and figures are never cut."""
    monkeypatch.setattr(console, "_width", columns)
    rates = {"launches": 158, "gflops": 12345.6, "gbps": 144.2, "roofline": 1.48}
    row = {"name": "Greater+Less+And+Where+coexec::X", "ms": 222.6, "share": 0.3, **rates}
    show_rows("Operators", [cast(RowRecord, row | {"bound": "bandwidth"})])
    heading, *lines = capsys.readouterr().out.splitlines()[2:]
    assert all(len(line.rstrip()) <= columns for line in lines)
    figures = lines[0]
    wide = ("runs", "GFLOP/s", "GB/s") if columns >= 80 else ()
    assert heading.split()[:6] == ["ms", "share", *wide, "roofline"][:6]
    assert "222.600" in figures
    assert figures.startswith("Greater+Less+A")


def test_the_command_runs_in_another_execution_mode(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(cache))
    model = write_network(tmp_path / "model.onnx")
    common = ("profile", model, "--batch-size", "16", "--steps", "2", "-p", THOROUGH[0], "--json")
    usual = coexec(*common).record
    stock = coexec(*common, "--residency", "host", "--synchronise", "operator").record
    assert stock["options"]["residency"] == "host"
    assert stock["options"]["synchronise"] == "operator"
    copies = [each["transfers"][THOROUGH[0]]["count"] for each in (usual, stock)]
    assert copies[1] > copies[0]


@pytest.mark.parametrize("flag", ["--html", "--trace"])
def test_an_output_that_cannot_be_written_fails_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the run began")

    monkeypatch.setattr(profile_command, "load", never)
    model = write_network(tmp_path / "model.onnx")
    done = coexec("profile", model, flag, tmp_path / "absent" / "file", "--json")
    assert done.status == 2
    assert flag in done.error["error"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--loss", "hinge"), "--loss 'hinge' is unknown"),
        (("--optimizer", "magic"), "--optimizer 'magic' is unknown"),
        (("--learning-rate", "0"), "--learning-rate"),
        (("--shape", "z=1x12"), "no input ['z']"),
        (("--residency", "moon"), "residency 'moon' is unknown; known: device, host"),
        (("--synchronise", "never"), "synchronise 'never' is unknown; known: step, operator"),
    ],
)
def test_flags_that_make_no_sense_are_named(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    model = write_network(tmp_path / "model.onnx")
    done = coexec("profile", model, "--train", *arguments, "--json")
    assert done.status == 2
    assert complaint in done.error["error"]


def test_devices_are_measured_and_saved(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(cache))
    file = tmp_path / "here.toml"
    arguments = ("devices", "--measure", "--save", file, "-p", THOROUGH[0], "-p", "reference")
    record = coexec(*arguments, "--json").record
    assert set(record["processors"]) == {THOROUGH[0], "reference"}
    measured = record["processors"][THOROUGH[0]]
    assert measured["peak_gflops"]["float32"] > 1
    assert 0.1 < measured["bandwidth_gbps"] < 10_000
    assert 0 < measured["launch_us"] < 1e4
    assert measured["launch_us"] < measured["sync_us"] < 1e5
    assert {"write", "read", "map"} <= set(measured["links"])
    assert measured["driver"]
    machine = read_machine(file)
    assert machine.date == record["date"]
    saved = machine.processors[THOROUGH[0]]
    assert saved.bandwidth_gbps == pytest.approx(measured["bandwidth_gbps"], rel=1e-3)


def test_rates_are_saved_under_a_name_that_a_simulation_reads(tmp_path: Path) -> None:
    done = coexec("devices", "--measure", "--save", tmp_path / "desk.txt", "--json")
    assert done.status == 2
    assert done.error["error"].endswith("desk.txt: name it desk.toml, which --machine reads")
    assert list(tmp_path.iterdir()) == []


def test_saving_needs_measuring(tmp_path: Path) -> None:
    done = coexec("devices", "--save", tmp_path / "x.toml", "--json")
    assert done.status == 2
    assert "--measure" in done.error["error"]
