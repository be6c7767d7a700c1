"""``coexec study run``: grids that are killed, go on, lose no cell, and say what is wrong."""

from __future__ import annotations

import csv
import importlib.util
import json
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coexec.study import measure
from coexec.study.parts import read_parts
from tests.pipeline.command import coexec, failed, python
from tests.pipeline.small import write_network

GRID = {
    "model": ["mlp", "sensor"],
    "machine": ["helio-p35", "snapdragon-8-gen-2"],
    "precision": ["int8"],
    "strategy": ["cpu", "npu", "heft", "auto", "adaptive"],
    "workload": ["camera"],
    "condition": ["loaded"],
}
CELLS, OF_ONE_GROUP = 20, 5
WITHOUT_NPU = 2
"""Cells that ask a phone for the NPU it does not have."""
WORDS = """
title = "a small study"
seed = 3

[models.sensor]
zoo = "sensor_cnn"
options = { }

[workloads.camera]
kind = "periodic"
requests = 3
fps = 30
beside = { mlp = 20 }
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from coexec.study.definition import read_definition
from coexec.study.run import run_study

done = 0

def count(cells):
    global done
    done += cells
    if done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

run_study(read_definition(Path(sys.argv[1])), Path(sys.argv[2]), observe=count)
"""


def write_study(folder: Path, words: str = WORDS, grid: Mapping[str, Any] = GRID) -> Path:
    folder.mkdir(exist_ok=True)
    axes = "\n".join(f"{axis} = {json.dumps(values)}" for axis, values in grid.items())
    (folder / "study.toml").write_text(f"{words}\n[[grids]]\n{axes}\n")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def unbroken(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    record = coexec("study", "run", study, "--out", out, "--json").record
    counts = {name: record[name] for name in ("cells", "done", "found", "refused", "left")}
    expected = {"cells": CELLS, "done": CELLS, "found": 0, "refused": WITHOUT_NPU, "left": 0}
    assert counts == expected
    return out


def test_killed_it_goes_on_in_another_process_to_the_same_results(
    study: Path, unbroken: Path, tmp_path: Path
) -> None:
    assert python(KILLED, [study, tmp_path]).status == -signal.SIGKILL
    assert len(read_parts(tmp_path)) == 2 * OF_ONE_GROUP
    options = ("--workers", "1", "--out", tmp_path, "--json")
    record = coexec("study", "run", study, *options).record
    assert (record["found"], record["done"], record["left"]) == (10, CELLS, 0)
    assert read_parts(tmp_path) == read_parts(unbroken)


def test_rows_tell_what_was_simulated(unbroken: Path) -> None:
    rows = list(read_parts(unbroken).values())
    for row in rows:
        if row["strategy"] == "npu" and row["machine"] == "helio-p35":
            assert row["outcome"] == "refused"
            assert "no npu" in row["error"]
            continue
        assert row["error"] == ""
        assert 0 < row["ms"] <= row["p90_ms"]
        assert row["mj"] > 0
        assert row["others_per_s"] > 0
        assert max(row[f"busy_{name}"] for name in ("cpu", "gpu", "npu")) <= 1 + 1e-9
        assert 0 < row["peak_bytes"] <= row["naive_bytes"]


def test_a_phone_whose_npu_lacks_an_operator(tmp_path: Path) -> None:
    without = '[machines.no-gemm]\nbase = "snapdragon-8-gen-2"\nnpu_without = ["Gemm"]\n'
    cells = {"machine": ["snapdragon-8-gen-2", "no-gemm"], "strategy": ["npu"], "model": ["mlp"]}
    folder = write_study(tmp_path / "study", WORDS + without, {**GRID, **cells})
    assert coexec("study", "run", folder, "--out", tmp_path, "--json").record["done"] == 2
    rows = {row["machine"]: row for row in read_parts(tmp_path).values()}
    assert rows["no-gemm"]["refused"] == rows["no-gemm"]["nodes_cpu"] > 0
    assert rows["snapdragon-8-gen-2"]["refused"] == 0
    assert rows["no-gemm"]["ms"] != rows["snapdragon-8-gen-2"]["ms"]


def test_an_npu_without_concat_joins_no_shares(tmp_path: Path) -> None:
    without = '[machines.no-concat]\nbase = "snapdragon-8-gen-2"\nnpu_without = ["Concat"]\n'
    strategies = ["single_best", "operator_split", "auto"]
    cells = {"machine": ["no-concat"], "strategy": strategies, "model": ["squeezenet"]}
    cells["precision"] = ["int8"]
    folder = write_study(tmp_path / "study", WORDS + without, {**GRID, **cells})
    assert coexec("study", "run", folder, "--out", tmp_path, "--json").record["refused"] == 0
    ms = {row["strategy"]: row["ms"] for row in read_parts(tmp_path).values()}
    assert max(ms["operator_split"], ms["auto"]) <= 1.01 * ms["single_best"]


def test_a_limit_is_kept_and_nothing_is_simulated_twice(study: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path, "--json")
    first = coexec("study", "run", study, "--limit", "2", *options).record
    assert (first["done"], first["left"]) == (2, CELLS - 2)
    second = coexec("study", "run", study, "--limit", "0", *options).record
    assert (second["found"], second["done"]) == (2, 2)
    (call,) = (tmp_path / "calls.jsonl").read_text().splitlines()
    took = json.loads(call)
    assert (took["cells"], took["workers"]) == (2, 1)
    assert 0 < took["seconds"] <= first["seconds"]
    assert took["processor_seconds"] > 0


def test_a_cell_that_fails_is_told_and_tried_again(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such luck")

    options = ("--limit", "3", "--out", tmp_path, "--json")
    with monkeypatch.context() as patched:
        patched.setattr(measure, "serve", broken)
        done = coexec("study", "run", study, *options)
    assert done.status == 1
    record = done.json_object()
    assert (record["failed"], record["left"], record["refused"]) == (2, CELLS - 1, 1)
    assert record["errors"] == ["ZeroDivisionError: no such luck"]
    assert coexec("study", "run", study, *options).record["failed"] == 0


def test_the_same_error_is_told_once_with_a_cell(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(measure, "serve", broken)
    told = coexec("study", "run", study, "--limit", "3", "--out", tmp_path).err.replace("\n", " ")
    assert "failed: 2 cells of mlp and helio-p35: ZeroDivisionError: no such luck" in told
    assert told.count("no such luck") == 1


def test_a_model_with_open_shapes_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    words = WORDS.replace('zoo = "sensor_cnn"\noptions = { }', 'onnx = "small.onnx"')
    folder = write_study(tmp_path / "study", words, GRID)
    write_network(folder / "small.onnx")
    message = failed(coexec("study", "run", folder, "--out", tmp_path), 2)
    assert message.endswith(
        "models.sensor.onnx has input 'x' of shape [N,12]: studies need fixed shapes"
    )


@pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="needs the extra study")
def test_a_study_with_processes_beside_another_one(
    study: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with socket.create_server(("", 8787), reuse_port=False):
        done = coexec(
            "study", "run", study, "--limit", "1", "--workers", "1", "--out", tmp_path, "--json"
        )
    assert done.record["done"] == 1
    assert not [str(each.message) for each in recwarn if "Port" in str(each.message)]


def test_csv_where_pyarrow_is_missing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else there(name)
    )
    record = coexec("study", "run", study, "--limit", "1", "--out", tmp_path, "--json").record
    with Path(record["table"]).open(newline="") as file:
        (row,) = csv.DictReader(file)
    (known,) = read_parts(tmp_path).values()
    assert float(row["ms"]) == known["ms"]


def test_parquet_where_pyarrow_is_installed(unbroken: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(unbroken / "results.parquet")
    assert sorted(table["ms"].drop_null().to_pylist()) == sorted(
        row["ms"] for row in read_parts(unbroken).values() if not row["error"]
    )


def test_a_damaged_part_is_named(study: Path, tmp_path: Path) -> None:
    part = tmp_path / "parts" / "one.jsonl"
    part.parent.mkdir()
    part.write_text('{"id": "half of a ro')
    assert str(part) in failed(coexec("study", "run", study, "--out", tmp_path))


@pytest.mark.parametrize(
    ("words", "change", "complaint"),
    [
        (WORDS, {"model": ["nothing"]}, "grids[0].model has 'nothing', which is unknown"),
        (WORDS, {"machine": ["phone"]}, "snapdragon-865"),
        (WORDS, {"strategy": []}, "grids[0].strategy is empty"),
        (WORDS, {"colour": ["red"]}, "grids[0].colour is unknown"),
        (WORDS.replace("seed = 3", ""), {}, "seed is missing"),
        (WORDS.replace("fps = 30", ""), {}, "workloads.camera.fps is missing"),
        (WORDS.replace("mlp = 20", "nobody = 20"), {}, "workloads.camera.beside has 'nobody'"),
        (WORDS + '[machines.one]\nbase = "two"\n', {}, "machines.one.base is 'two'"),
        (WORDS + "[conditions.loaded]\nlead_in_s = 1\n", {}, "conditions.loaded.lead_in_s"),
    ],
)
def test_what_is_wrong_with_a_definition(
    words: str, change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "study", words, {**GRID, **change})
    assert complaint in failed(coexec("study", "run", folder, "--out", tmp_path), 2)


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    assert "study.toml" in failed(coexec("study", "run", tmp_path, "--out", tmp_path), 2)
