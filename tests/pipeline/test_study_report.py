"""The report of the study of inference: figures, answers and verdicts come from its rows alone."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STUDY = Path(__file__).parents[2] / "studies" / "heterogeneous_inference"
PLAIN = {
    "model": "net",
    "technique": "none",
    "machine": "phone",
    "precision": "float32",
    "wait": "finish",
    "fusion": "on",
    "workload": "single",
    "condition": "idle",
}
ALONE = {"cpu": 10.0, "gpu": 20.0, "single_best": 10.0, "heft": 25.0, "auto": 8.0, "adaptive": 8.0}
TOGETHER = ("heft", "auto", "adaptive", "pipeline")


def cell(strategy: str, ms: float, **changed: Any) -> dict[str, Any]:
    """A row as ``coexec study run`` writes it."""
    nodes = {"nodes_cpu": 1, "nodes_gpu": int(strategy in TOGETHER), "nodes_npu": 0}
    if strategy == "gpu":
        nodes = {"nodes_cpu": 0, "nodes_gpu": 1, "nodes_npu": 0}
    figures = {"ms": ms, "predicted_ms": ms, "mj": ms, "per_s": 1e3 / ms, "late": 0.0}
    counts = {"splits": 0, "refused": 0, "launches": 1, "peak_bytes": 100, "naive_bytes": 150}
    busy = {"busy_cpu": 0.5, "busy_gpu": 0.5, "busy_npu": 0.0, "replanned": 0}
    words = {"outcome": "", "error": "", "note": ""}
    return {**PLAIN, "strategy": strategy, **words, **nodes, **figures, **counts, **busy, **changed}


def rows() -> list[dict[str, Any]]:
    found = [cell(name, ms) for name, ms in ALONE.items()]
    found += [
        cell(name, 2 * ms, condition="cpu-load", replanned=int(name == "adaptive"))
        for name, ms in (ALONE | {"auto": 9.0}).items()
    ]
    # Without fusion everything takes 1.5 times as long; int8 halves the time.
    found += [cell(name, 1.5 * ms, fusion="off") for name, ms in ALONE.items()]
    for fusion, factor in (("on", 0.5), ("off", 0.75)):
        found += [cell(n, factor * ms, precision="int8", fusion=fusion) for n, ms in ALONE.items()]
    burst = {"auto": 20.0, "adaptive": 20.0, "cpu": 25.0, "pipeline": 10.0}
    found += [cell(name, ms, workload="burst") for name, ms in burst.items()]
    found.append(cell("exact", 10.0, note="optimal"))
    lacking = {"machine": "phone-without-add", "precision": "float16"}
    found += [cell(n, ms, nodes_npu=1, **lacking) for n, ms in {"auto": 9.0, "npu": 8.0}.items()]
    lost = {"outcome": "refused", "error": "no npu"}
    return [*found, {**cell("npu", 1.0), **lost, "ms": ""}]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    found = rows()
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    calls = [
        {"cells": 30, "seconds": 2.0, "processor_seconds": 3.0, "workers": 2},
        {"cells": 10, "seconds": 2.0, "processor_seconds": 1.0, "workers": 2},
    ]
    (folder / "calls.jsonl").write_text("\n".join(map(json.dumps, calls)))
    # A folder of its own stands for the tables, figures and README that are kept.
    copy = shutil.copytree(STUDY, folder / "study")
    subprocess.run([sys.executable, copy / "report.py", folder], check=True, timeout=120)
    assert {"table.md", "results.csv", "levels.svg"} <= {file.name for file in copy.iterdir()}
    assert "| phone-without-add | float16 | finish | on | npu | 1.12 |" in (
        copy / "table.md"
    ).read_text(encoding="utf-8")
    return " ".join((copy / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "sentence",
    [
        "38 cells, of which 1 cannot be",
        "2 calls with 2 processes simulated 40 in 4 s: 10.0 cells a second",
        "a cell takes 100 ms of a core, so that two cores of their own take 8.3 minutes",
        "`heft` in 100 % (0.40, 0.40)",
        "Of 1 searches on small models 1 ended with a proof.",
        "cpu-load 1.12 and 1.00 (100 % planned again, factor 1.12 there)",
        "burst 2.00 times the requests a second",
        "fusion 1.50, int8 2.00",
        "All of the frontend 3.00, all of the backend 1.25, both 3.75: 1.25 times the better level",
        "one processor, float32 1.50 (1.50)",
        "1.50 to 1.50 times; 100 % of 1 models | reproduced |",
        "cpu-load 1.125 | reproduced |",
        "no such cell has a result | cannot be told |",
    ],
)
def test_what_the_page_says_is_what_the_rows_say(page: str, sentence: str) -> None:
    assert sentence in page


def test_words_around_the_answers_stay(page: str) -> None:
    words = (STUDY / "README.md").read_text(encoding="utf-8")
    before, _, _ = words.partition("<!-- answers")
    _, _, after = words.rpartition("<!-- end -->")
    for part in (before, after):
        assert " ".join(part.split()) in page
