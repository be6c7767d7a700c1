"""``coexec tune``: a real search on a tiny model, files of tuned values, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec.api import LAST_RESORT, load
from coexec.core.events import Trace
from coexec.core.types import OpCall
from coexec.processors.find import open_processor
from coexec.processors.opencl.choose import Choice, by_default
from coexec.processors.opencl.discover import choose_device
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.tuning.key import CallKey, key_of
from coexec.processors.opencl.tuning.lookup import tuned_path
from coexec.processors.opencl.tuning.store import DeviceId, Entry, TunedFile, read_tuned
from coexec.session import Session
from tests.pipeline.command import coexec as command
from tests.pipeline.command import failed
from tests.pipeline.small import write_network
from tests.runtimes import DRIVERS

BUDGETS = ("2s", "10s", "60s")
"""On a busy machine the first ones may end before anything was tried."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fresh(runtime: str) -> OpenCLProcessor:
    """A processor that reads tuned values now."""
    return OpenCLProcessor(*choose_device(runtime))


def run(model: Path, processor: OpenCLProcessor) -> set[str]:
    """Choices of the kernels of a run."""
    processors = {processor.name: processor, "last": open_processor(LAST_RESORT)}
    trace = Trace()
    Session(load(model, {"x": (4, 12)}), processors).run(
        {"x": np.ones((4, 12), np.float32)}, trace=trace
    )
    return {part.choice for event in trace.events for part in event.parts}


@pytest.mark.parametrize("runtime", DRIVERS)
def test_tuning_searches_checks_and_keeps_what_it_finds(
    runtime: str, model: Path, cache: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "found.json"
    flags = ("--batch-size", "4", "-p", runtime, "--save", saved, "--json")
    runs = (command("tune", model, *flags, "--budget", budget).record for budget in BUDGETS)
    record = next(record for record in runs if record["files"])

    assert record["processor"] == runtime
    assert not record["interrupted"]
    assert record["stale"] == {}
    assert record["tuned_ms"] <= record["default_ms"]
    tuned = [call for call in record["calls"] if call["tried"]]
    assert tuned
    for call in tuned:
        assert call["checked"] == "naive"
        assert "wrong result" not in call["refused"], call
        assert (call["chosen"] == call["default"]) == (call["ms"] == call["default_ms"])

    path = tuned_path(fresh(runtime).facts)
    assert record["files"] == [str(path), str(saved)]
    assert read_tuned(path) == read_tuned(saved)
    assert len(read_tuned(path).entries) == len(tuned)


def test_it_says_that_a_file_is_not_written_where_time_was_too_short(
    model: Path, cache: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "found.json"
    flags = ("--batch-size", "4", "-p", DRIVERS[0], "--save", saved, "--budget", "0.001s")
    told = "".join(command("tune", model, *flags).err.split())  # long paths break within words
    assert "found.json,asnocallwastuned:givealarger--budget" in told
    assert not saved.exists()


def test_tuned_values_are_used_until_their_kernels_change(
    model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = DRIVERS[0]
    processor = fresh(runtime)
    keys: dict[str, CallKey] = {}

    def noting(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        keys[call.identifier] = key_of(call)
        return by_default(family, call, facts)

    processor.choose = noting
    assert "naive LOCAL=16" not in run(model, processor)
    path = tuned_path(processor.facts)
    entry = Entry(keys["Gemm"], "naive", {"LOCAL": 16}, 2.0, 1.0, "2026-01-01", {})
    file = TunedFile(DeviceId.of(processor.facts), (entry,))
    path.parent.mkdir(parents=True)
    file.write(path)
    assert "naive LOCAL=16" in run(model, fresh(runtime))
    assert not caplog.messages

    old = replace(entry, sources={"gemm": "0123456789abcdef"})
    replace(file, entries=(old,)).write(path)
    assert "naive LOCAL=16" not in run(model, fresh(runtime))
    (message,) = set(caplog.messages)
    assert message.startswith(f"{path}: 1 of 1 tuned values are ignored (gemm.cl changed)")
    again = command("tune", model, "--batch-size", "4", "-p", runtime, "--budget", "0.1s")
    assert "dropped: 1 older values (gemm.cl changed)" in again.err


def test_files_are_merged(model: Path, cache: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    device = {"name": "d", "vendor": "v", "unit_kind": "gpu", "vector_bytes": 4, "compute_units": 8}
    for number, path in enumerate(paths, 1):
        entry = {
            "operator": "Relu",
            "kind": "float32:float32",
            "sizes": [number],
            "variant": "naive",
            "values": {"LOCAL": 16},
            "default_ms": 2.0,
            "ms": 1.0,
            "date": "2026-01-01",
            "sources": {},
        }
        path.write_text(json.dumps({"format": 1, "device": device, "entries": [entry]}))
    out = tmp_path / "both.json"
    record = command("tune", "--merge", *paths, "--out", out, "--json").record
    assert record == {"files": list(map(str, paths)), "out": str(out), "entries": 2}
    assert [entry.key.sizes for entry in read_tuned(out).entries] == [(1,), (2,)]

    paths[1].write_text("{}")
    text = failed(command("tune", "--merge", *paths, "--out", out), 2)
    assert text == f"{paths[1]}: format is missing"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "soon"], "--budget 'soon': write it as 60s, 10m or 1h"),
        (["--budget", "0s"], "--budget '0s': write it as 60s, 10m or 1h"),
        (["--train"], "--train needs a model"),
        (["--shape", "x=1x3"], "--shape needs a model"),
        (["a.onnx", "b.onnx"], "tune takes one model, not 2; to merge files give --merge"),
        (["absent.onnx"], "absent.onnx: no such file"),
        (["--loss", "hinge"], "--loss 'hinge' is unknown; known: cross-entropy, mse, l1,"),
        (["--optimizer", "rms"], "--optimizer 'rms' is unknown; known: sgd, adam, adamw"),
        (["--save", "no/such.json"], "--save no/such.json: the folder "),
        (["--out", "c.json"], "--out goes with --merge; --save FILE.json keeps what tuning finds"),
        (["--merge", "a.json", "--out", "c.json"], "--merge needs two files at least:"),
        (["--merge", "a.json", "b.json"], "--merge needs --out FILE.json:"),
        (["--merge", "a.json", "b.json", "--out", "c.json"], "cannot read a.json: No such file"),
        (["-p", "reference"], "processor 'reference' has no kernels to tune; those of opencl have"),
        (["-p", f"{DRIVERS[0]}?kernels=naive"], "naive kernels are not tuned; leave kernels=naiv"),
        (["-p", "opencl:absent"], "opencl:absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_named(
    flags: list[str], message: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("tune", *flags, "--json")
    assert message in done.error["error"]
    assert not list(tmp_path.glob("*.json"))


def test_the_table_names_calls_and_changes(model: Path, cache: Path) -> None:
    flags = ("--batch-size", "4", "-p", DRIVERS[0])
    runs = (command("tune", model, *flags, "--budget", budget) for budget in BUDGETS)
    done = next(done for done in runs if "written " in done.err)
    assert done.status == 0, done.err
    title, heading, *rows = done.out.splitlines()
    assert title.split(",")[0] == DRIVERS[0]
    assert heading.split() == ["call", "runs", "default", "tuned", "less", "change"]
    assert any(row.startswith("Gemm 4x") for row in rows)
    assert "ms predicted" in done.out
