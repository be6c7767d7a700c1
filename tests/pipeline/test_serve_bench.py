"""``coexec serve-bench`` as people use it: predictions without devices, servings with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace

from coexec.cli.output import console
from coexec.serving.schedulers.table import SCHEDULERS
from tests.pipeline.command import coexec, failed, finish, start
from tests.pipeline.small import write_network

EXAMPLE = Path(__file__).parents[2] / "examples" / "serving.toml"
PREDICTED = """\
duration_s = 1
processors = ["fast", "slow"]
[models.camera]
model = "mlp"
arrivals = { kind = "periodic", fps = 20 }
deadline_ms = 40
times_ms = { fast = 10, slow = 30 }
[models.words]
model = "mlp"
arrivals = { kind = "burst", size = 4, every_ms = 500 }
times_ms = { fast = 20, slow = 25 }
processor = "slow"
"""


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    path = tmp_path / "workload.toml"
    path.write_text(PREDICTED)
    return path


def test_help_shows_an_example() -> None:
    assert "Example: coexec serve-bench" in coexec("serve-bench", "--help").out


def test_a_dry_run_with_given_times_needs_no_device(predicted: Path) -> None:
    record = coexec("serve-bench", predicted, "--dry-run", "--json").record
    assert set(record["schedulers"]) == set(SCHEDULERS)
    fixed = record["schedulers"]["fixed"]
    assert fixed["measured"] is None
    # Each has a processor of its own: a camera's picture takes 10 ms, four words 25 ms each.
    assert fixed["predicted"]["models"]["camera"]["p99_ms"] == 10
    assert fixed["predicted"]["models"]["words"]["p50_ms"] == pytest.approx(62.5)
    assert fixed["predicted"]["utilisation"] == {"fast": 0.2, "slow": 0.2}
    # Whoever shares both serves the words sooner.
    for name in ("shortest_expected_latency", "least_slack", "heft"):
        words = record["schedulers"][name]["predicted"]["models"]["words"]
        assert words["served"] == 8
        assert words["p50_ms"] < 62.5
    assert coexec("serve-bench", predicted, "--dry-run", "--json").record == record


def test_a_dry_run_for_people(predicted: Path, tmp_path: Path) -> None:
    out = tmp_path / "serving.perfetto-trace"
    how = ("--dry-run", "--scheduler", "heft", "--trace", out)
    done = coexec("serve-bench", predicted, *how)
    assert done.status == 0, done.err
    for word in ("heft, predicted", "camera", "words", "p99", "missed", "fast", "█"):
        assert word in done.out
    packets = PerfettoTrace.FromString(out.read_bytes()).packet
    tracks = {packet.track_descriptor.name for packet in packets}
    assert {"fast", "slow", "camera waiting", "words waiting"} <= tracks
    assert sum(packet.track_event.name.startswith("camera #") for packet in packets) == 40


def test_the_example_is_served(tmp_path: Path) -> None:
    # In a process of its own: PoCL's cores are chosen once per process.
    how = ("--duration", "0.5", "--scheduler", "least_slack", "--json")
    record = finish(start("serve-bench", EXAMPLE, *how)).record
    serving = record["schedulers"]["least_slack"]["measured"]
    assert serving["models"]["words"]["served"] == 8
    assert serving["models"]["camera"]["served"] >= 10
    assert set(serving["utilisation"]) == set(record["processors"])
    assert all(0 < busy <= 1 for busy in serving["utilisation"].values())
    assert record["times_ms"]["camera"][0].keys() == set(record["processors"])


def test_a_planned_pipeline_is_served_in_stages(tmp_path: Path) -> None:
    model = write_network(tmp_path / "model.onnx")
    plan = tmp_path / "plan.onnx"
    how = ("--processors", "opencl,reference", "--policy", "pipeline", "--save", plan, "--json")
    record = coexec("plan", model, *how).record
    stream = record["stream"]
    assert stream["predicted"]["pipeline_per_s"] > 0
    assert stream["balanced"]["pipeline_per_s"] == pytest.approx(
        1e3 / max(stream["balanced"]["pipeline_busy_ms"].values())
    )
    workload = tmp_path / "workload.toml"
    workload.write_text(
        'duration_s = 0.2\nprocessors = ["opencl", "reference"]\n'
        '[models.small]\nmodel = "model.onnx"\nplan = "plan.onnx"\nshapes = { x = [1, 12] }\n'
        'arrivals = { kind = "stream", in_flight = 4 }\n'
    )
    served = coexec("serve-bench", workload, "--scheduler", "heft", "--json").record
    assert len(served["times_ms"]["small"]) == len(stream["balanced"]["pipeline_busy_ms"])
    assert served["schedulers"]["heft"]["measured"]["models"]["small"]["served"] > 4


def test_a_picture_shows_every_scheduler_and_model(
    predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "serving.svg"
    assert coexec("serve-bench", predicted, "--dry-run", "--picture", out).status == 0
    drawn = out.read_text()
    assert drawn.rstrip().endswith("</svg>")
    for word in (*SCHEDULERS, "camera", "words", "fast", "slow", "share of requests"):
        assert f"<!-- {word} -->" in drawn
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    message = failed(coexec("serve-bench", predicted, "--dry-run", "--picture", out), 2)
    assert "coexec[pictures]" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scheduler", "luck"], "--scheduler 'luck' is unknown; known: fixed"),
        (["--duration", "0"], "--duration 0"),
        (["--trace", "out.pb"], "--trace is of one scheduler"),
        (["--picture", "/nowhere/out.svg"], "--picture /nowhere/out.svg"),
        (["--scheduler", "heft", "--trace", "/nowhere/out.pb"], "--trace /nowhere/out.pb"),
    ],
)
def test_bad_flags(predicted: Path, flags: list[str], message: str) -> None:
    assert message in failed(coexec("serve-bench", predicted, "--dry-run", *flags), 2)


SIMULATED = """\
duration_s = 0.2
processors = ["sim:snapdragon-865/cpu", "sim:snapdragon-865/gpu"]
[models.small]
model = "model.onnx"
shapes = { x = [1, 12] }
arrivals = { kind = "periodic", fps = 20 }
"""


def test_a_phones_processors_are_timed_by_the_phones_clock(tmp_path: Path) -> None:
    model = write_network(tmp_path / "model.onnx")
    workload = tmp_path / "workload.toml"
    workload.write_text(SIMULATED)
    record = coexec("serve-bench", workload, "--dry-run", "--json").record
    assert record["clock"] == "virtual"
    (times,) = record["times_ms"]["small"]
    for name, ms in times.items():
        how = ("--shape", "x=1x12", "-p", name, "--repeat", "30", "--json")
        assert ms == pytest.approx(coexec("run", model, *how).record["median_ms"], rel=0.1)


def test_nothing_is_served_in_virtual_time(tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    workload = tmp_path / "workload.toml"
    workload.write_text(SIMULATED)
    message = failed(coexec("serve-bench", workload), 2)
    assert message == (
        "sim:snapdragon-865/cpu, sim:snapdragon-865/gpu run in virtual time, and requests come in "
        "real time: --dry-run predicts the serving"
    )


@pytest.mark.parametrize("other", ["reference", "sim:helio-p35/gpu"])
def test_processors_of_one_workload_have_one_clock(other: str, tmp_path: Path) -> None:
    write_network(tmp_path / "model.onnx")
    workload = tmp_path / "workload.toml"
    workload.write_text(SIMULATED.replace("sim:snapdragon-865/gpu", other))
    message = failed(coexec("serve-bench", workload, "--dry-run"))
    assert message.startswith(f"sim:snapdragon-865/cpu and {other} have not the same clock")


def test_columns_are_whole_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(tmp_path / "model.onnx")
    workload = tmp_path / "workload.toml"
    workload.write_text(
        SIMULATED.replace('"sim:snapdragon-865/cpu", "sim:snapdragon-865/gpu"', '"reference"')
    )
    monkeypatch.setattr(console, "width", 80)
    shown = coexec("serve-bench", workload, "--scheduler", "heft").out
    assert "…" not in shown
    for heading in ("small", "served", "p50", "p99", "missed", "waiting", "predicted"):
        assert heading in shown


def test_bad_workloads_name_file_and_key(predicted: Path, tmp_path: Path) -> None:
    predicted.write_text(PREDICTED.replace("fps = 20", "fps = -1"))
    message = failed(coexec("serve-bench", predicted), 2)
    assert str(predicted) in message
    assert "models.camera.arrivals.fps" in message
    predicted.write_text(PREDICTED)
    assert "unknown processor 'fast'" in failed(coexec("serve-bench", predicted))
    assert "cannot read" in failed(coexec("serve-bench", tmp_path / "none.toml"), 2)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x09\x8f")
    assert failed(coexec("serve-bench", tmp_path / "model.onnx"), 2).endswith(
        "model.onnx is not a TOML file: it is no text in UTF-8"
    )
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    text = PREDICTED.replace('"fast", "slow"', '"reference"').replace('model = "mlp"', "", 1)
    text = text.replace("[models.camera]\n", '[models.camera]\nmodel = "bad.onnx"\n')
    text = text.replace("times_ms = { fast = 10, slow = 30 }", "")
    text = text.replace('times_ms = { fast = 20, slow = 25 }\nprocessor = "slow"\n', "")
    predicted.write_text(text)
    assert "models.camera: " in failed(coexec("serve-bench", predicted))
