"""``coexec calibrate`` and ``coexec validate`` on a folder of measurements from a known law."""

from __future__ import annotations

from pathlib import Path

import pytest

from coexec.report.validation_page import POINTS, write_validation_page
from tests.phones import CHIPS, write_folder
from tests.pipeline.command import coexec

pytest.importorskip("sklearn")


NPU = """model_id,component,precision,device,inference_ms,layers_npu
secretnet,a,float,Samsung Galaxy S24,10,99
secretnet,a,w8a8,Samsung Galaxy S24,5,99
othernet,b,float,Samsung Galaxy S24,7,50
"""
"""Networks of which nothing is known."""


def test_what_is_calibrated_is_validated_on_a_page(tmp_path: Path) -> None:
    data, fitted, page = write_folder(tmp_path / "phones"), tmp_path / "c.json", tmp_path / "v.html"
    made = coexec("calibrate", "--data", data, "--out", fitted, "--json").record
    assert made["rows"]["tflite gpu float16"] == 260
    assert made["errors"]["tflite cpu float32"] < 0.05
    (data / "notes.txt").write_text("words")
    (data / "npu_hexagon.csv").write_text(NPU)
    flags = ("--data", data, "--coefficients", fitted, "--html", page)
    judged = coexec("validate", *flags, "--no-cross", "--json").record
    scores = {(s["dataset"], s["group"]): s for s in judged["scores"]}
    assert scores["e2e_tflite", "all"]["mape"] < 0.05
    assert scores["e2e_tflite", "all"]["tau"] > 0.9
    assert {score["split"] for score in judged["scores"]} == {"as shipped"}
    text = page.read_text()
    assert text.count("<svg") >= 2
    assert "net3, snapdragon-855 gpu: measured" in text
    assert "<script" not in text
    assert '<td class="text short">unknown file: left alone</td>' in text
    assert "3 rows" in text
    assert "layers of the network are not known (from line 2): secretnet 2, othernet 1" in text
    (left,) = judged["left_out"]
    assert left["names"] == {"secretnet": 2, "othernet": 1}
    assert (left["file"], left["rows"], left["first_line"]) == ("npu_hexagon.csv", 3, 2)
    assert {check["file"] for check in judged["checks"]} == {"notes.txt", "npu_hexagon.csv"}


def test_models_chips_and_data_sheets_are_held_out(tmp_path: Path) -> None:
    """Each in the table, by chip and on the page; the verdict is of the strictest."""
    data, page = write_folder(tmp_path / "phones"), tmp_path / "v.html"
    judged = coexec("validate", "--data", data, "--html", page, "--json").record
    splits = ("as shipped", "models held out", "chips held out", "data sheet alone")
    assert tuple(dict.fromkeys(score["split"] for score in judged["scores"])) == splits
    chips = {chip["group"] for chip in judged["chips"] if chip["split"] == splits[-1]}
    assert chips == set(CHIPS)
    assert judged["verdict"].startswith("Data sheet alone: ")
    assert all(score["bias"] > -1 for score in judged["scores"])
    text = page.read_text()
    assert "Errors by chip" in text
    assert text.count("data sheet alone") > 4


def test_the_points_of_a_large_plot_are_of_all_chips(tmp_path: Path) -> None:
    """Rows of chips take turns in files: every n-th row would be of one chip."""
    points = [
        {"measured_us": 10.0, "predicted_us": 11.0, "kind": "gpu", "label": f"chip {place % 4}"}
        for place in range(4 * POINTS)
    ]
    record = {
        "data": "phones",
        "verdict": "",
        "fitted": "2026-01-31",
        "plots": [{"title": "kernels", "points": points}],
        "scores": [],
        "chips": [],
        "ratios": [],
        "checks": [],
    }
    write_validation_page(record, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<title>chip") == POINTS
    assert {f"chip {number}" for number in range(4) if f"chip {number}:" in text} == {
        "chip 0",
        "chip 1",
        "chip 2",
        "chip 3",
    }


def test_without_a_folder_it_tells_what_calibration_found() -> None:
    known = coexec("validate", "--json").record
    assert known["rows"].keys() >= known["errors"].keys()
    assert 0 < known["errors"]["tflite gpu float16"] < 0.2
    failed = coexec("validate", "--html", "page.html", "--json")
    assert failed.error["error"] == "--html goes with --data: a page shows rows"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    failed = coexec("validate", "--data", tmp_path / "none", "--json")
    assert str(tmp_path / "none") in failed.error["error"]


def test_a_folder_of_single_costs_alone_is_compared(tmp_path: Path) -> None:
    """Figures of known chips and cores; rows of others are named."""
    rows = "soc,CPU,Frequency (kHz),Power (mW)\nSnapdragon855,7,2841600,2000\n"
    (tmp_path / "cpu_power_freqbench.csv").write_text(rows + "Toaster 9000,0,100,1\n")
    judged = coexec("validate", "--data", tmp_path, "--json").record
    assert judged["scores"] == []
    compared, left = judged["checks"]
    assert (compared["what"], compared["rows"]) == ("Snapdragon855", 1)
    assert left["note"].endswith("no machine file of the chip (from line 3): Toaster 9000 1")
    shown = coexec("validate", "--data", tmp_path).out
    assert "No row is predicted" in shown
