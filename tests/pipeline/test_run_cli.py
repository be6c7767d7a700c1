"""``coexec run``: outputs, what people see, traces."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.pipeline.command import coexec, failed
from tests.pipeline.perfetto_slices import slices
from tests.pipeline.small import CLASSES, FEATURES, HIDDEN, write_data, write_network

LINE = re.compile(
    r"(?P<device>\S+) +(?P<what>\S+) +(?P<name>.*?) +(?P<ms>\d+\.\d{3}) ms"
    r" +(?P<flops>[\d.]+|-) GFLOP/s +(?P<bytes>[\d.]+|-) GB/s"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


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


def test_several_processors_in_one_option_are_told_apart(model: Path) -> None:
    found = failed(coexec("run", model, "--shape", f"x=2x{FEATURES}", "-p", "opencl,reference"))
    assert found == (
        "processor 'opencl,reference': name one at a time, as in -p opencl -p reference"
    )
