"""Measurements that cannot be: file, line and column are named, and nothing divides by 0."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from coexec.base.errors import UsageError
from coexec.cost.calibration import operators, training
from coexec.cost.calibration.checks import check_folder
from coexec.cost.calibration.folder import read_files
from coexec.cost.calibration.frameworks import TABLES, TABLES_COLUMNS, read_frameworks
from coexec.cost.calibration.kernels import COLUMNS as KERNEL_COLUMNS
from coexec.cost.soc.coefficients import shipped
from tests.phones import write_csv, write_folder

CHIP = "snapdragon-855"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("in_c", "0"),
        ("out_c", "0"),
        ("in_hw", "-7"),
        ("out_hw", "0"),
        ("stride", "0"),
        ("group", "0"),
        ("flops", "-1"),
    ],
)
def test_sizes_of_layers_are_above_0(column: str, value: str, tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "gpu_ops_tflite.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[2][column] = value
    write_csv(path, KERNEL_COLUMNS, rows)
    least = "of at least 0" if column == "flops" else "above 0"
    wanted = rf"line 4: {column} is '{value}'; a number {least} is wanted"
    with pytest.raises(UsageError, match=wanted):
        read_files(tmp_path)


@pytest.mark.parametrize(
    ("file", "header", "row", "message"),
    [
        (
            "training_cpu_sd855.csv",
            "soc,model,batch,train_step_ms",
            f"{CHIP},Alexnet,0,500",
            "batch is '0'; a number above 0 is wanted",
        ),
        (
            "transfer_sd855.csv",
            "step,data_size,latency_ms",
            "mapping,1000,0",
            "latency_ms is '0'; a number above 0 is wanted",
        ),
        (
            "power_sd855.csv",
            "soc,method,avg_power_W",
            f"{CHIP},MACE-CPU,-2",
            "avg_power_W is '-2'; a number above 0 is wanted",
        ),
    ],
)
def test_figures_that_are_compared_are_above_0(
    file: str, header: str, row: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(f"{header}\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"{file}, line 2: {re.escape(message)}"):
        check_folder(tmp_path, shipped())


def test_a_file_of_waits_without_a_row_is_told(tmp_path: Path) -> None:
    (tmp_path / "presync_sd855.csv").write_text("data_size,presync_ms\n", encoding="utf-8")
    (check,) = check_folder(tmp_path, shipped())
    assert (check.rows, check.note) == (0, "no such rows")


def test_a_core_that_no_phone_has_is_left_out(tmp_path: Path) -> None:
    header = "soc,CPU,Frequency (kHz),Power (mW)"
    path = tmp_path / "cpu_power_freqbench.csv"
    path.write_text(f"{header}\n{CHIP},-1,300000,50\n", encoding="utf-8")
    (check,) = check_folder(tmp_path, shipped())
    assert "the chip has no such core" in check.note


def test_a_row_without_its_engine_is_left_out(tmp_path: Path) -> None:
    row = dict.fromkeys(TABLES_COLUMNS, "")
    row |= {"soc": CHIP, "processor": "CPU", "threads": "1", "precision": "fp32"}
    row |= {"model": "SqueezeNetV1.1", "latency_ms": "20"}
    write_csv(tmp_path / f"{TABLES}.csv", TABLES_COLUMNS, [row, row | {"framework": "TNN v0.3"}])
    samples, left_out = read_frameworks(tmp_path)
    assert [sample.engine for sample in samples] == ["tnn"]
    assert [(each.line, each.reason) for each in left_out] == [(2, "its engine is not said")]


def test_times_that_were_not_measured_are_no_samples(tmp_path: Path) -> None:
    """Of a training step, of a product; a product whose sizes nobody can read is no square."""
    row = dict.fromkeys(operators.COLUMNS, "")
    step = {"soc": "SD865", "kind": "train", "workload": "VGG11 CIFAR10", "batch": "64"}
    step |= {"metric": "time", "cpu": "2.5", "gpu": "n/a", "npu_dsp": "OOM"}
    product = {"soc": "SD865", "workload": "matmul 1x2048 * 2048x2048", "cpu": "3.0", "gpu": "-"}
    odd = {"soc": "SD865", "kind": "sgemm", "workload": "?x64 naive kernel", "cpu": "9"}
    write_csv(
        tmp_path / "literature.csv", operators.COLUMNS, [row | step, row | product, row | odd]
    )
    samples, _ = training.read_training(tmp_path)
    assert [(sample.processor, sample.measured_us) for sample in samples] == [("cpu", 2.5e6)]
    found = {check.what: check.rows for check in check_folder(tmp_path, shipped())}
    assert found["wide products int8, cpu"] == 1
    assert found["wide products float16, gpu"] == 0
    assert found["square products, cpu"] == 0
