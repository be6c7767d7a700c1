"""Folders of measurements that others made: rows are used, counted, or named in an error."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coexec.base.errors import UsageError
from coexec.cost.calibration.checks import check_folder
from coexec.cost.calibration.fit import fit
from coexec.cost.calibration.folder import read_folder
from coexec.cost.calibration.left_out import reasons
from coexec.cost.calibration.validate import BY_MODEL, BY_SOC, cross_validate, from_data_sheets
from coexec.cost.soc.coefficients import shipped
from tests.phones import write_csv, write_folder

pytest.importorskip("sklearn")
KERNELS, NETWORKS = "gpu_ops_tflite.csv", "e2e_tflite.csv"
Rows = list[dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "phones")


def edit(path: Path, change: Callable[[Rows], None]) -> None:
    """Rewrite a file with its rows changed."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    write_csv(path, tuple(rows[0]), rows)


def set_first(path: Path, column: str, value: str) -> None:
    def change(rows: Rows) -> None:
        rows[0][column] = value

    edit(path, change)


@pytest.mark.parametrize("name", [KERNELS, NETWORKS])
def test_rows_of_chips_that_nobody_described_are_counted(folder: Path, name: str) -> None:
    whole = read_folder(folder)
    set_first(folder / name, "soc", "Toaster 9000")
    found = read_folder(folder)
    assert found.skipped == {name.removesuffix(".csv"): 1}
    assert len(found.samples) == len(whole.samples) - 1


@pytest.mark.parametrize("mark", ["", "nan", "NaN", "-", "N/A", "null"])
def test_rows_without_a_time_are_counted(folder: Path, mark: str) -> None:
    set_first(folder / NETWORKS, "mean_us", mark)
    set_first(folder / KERNELS, "latency_us", mark)
    assert read_folder(folder).skipped == {"gpu_ops_tflite": 1, "e2e_tflite": 1}


def test_rows_of_new_networks_are_counted(folder: Path) -> None:
    set_first(folder / NETWORKS, "model", "a network that came later")
    assert read_folder(folder).skipped == {"e2e_tflite": 1}


@pytest.mark.parametrize(
    ("name", "column", "value", "complaint"),
    [
        (NETWORKS, "mean_us", "0", "mean_us is '0'; a time above 0 is wanted"),
        (NETWORKS, "mean_us", "-5", "mean_us is '-5'; a time above 0 is wanted"),
        (NETWORKS, "mean_us", "inf", "mean_us is 'inf'; a finite number is wanted"),
        (NETWORKS, "mean_us", "fast", "mean_us is 'fast'; a number is wanted"),
        (KERNELS, "latency_us", "-1", "latency_us is '-1'; a time above 0 is wanted"),
        (KERNELS, "in_c", "nan", "in_c is 'nan'; a finite number is wanted"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    folder: Path, name: str, column: str, value: str, complaint: str
) -> None:
    set_first(folder / name, column, value)
    with pytest.raises(UsageError) as raised:
        read_folder(folder)
    assert f"{folder / name}, line 2: {complaint}" in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "reason", "name"),
    [
        ({"cores": "1gold"}, "no such mix of cores is predicted", "1gold of snapdragon-855"),
        ({"cores": "large"}, "no such mix of cores is predicted", "large of snapdragon-855"),
        ({"cores": "9small"}, "no such mix of cores is predicted", "9small of snapdragon-855"),
        (
            {"cores": "1large9med"},
            "no such mix of cores is predicted",
            "1large9med of snapdragon-855",
        ),
        ({"precision": "bf16"}, "no such element type is predicted", "bf16"),
        ({"proc": "DSP"}, "no such processor is predicted", "DSP"),
        ({"soc": "Toaster 9000"}, "no machine file of the chip", "Toaster 9000"),
        ({"model": "toastnet"}, "layers of the network are not known", "toastnet"),
        ({"framework": "MNN 2"}, "such files are predicted in TensorFlow Lite alone", "MNN 2"),
        ({"mean_us": "-"}, "no time", "net0"),
    ],
)
def test_a_row_that_is_not_understood_stops_no_other(
    folder: Path, changed: dict[str, str], reason: str, name: str
) -> None:
    whole = len(read_folder(folder).samples)

    def change(rows: Rows) -> None:
        cpu = [row for row in rows if row["proc"].lower() == "cpu"]
        row = {**cpu[0], "soc": "snapdragon-855", "framework": "TFLite2.10", **changed}
        rows[:] = [{**each, "framework": "TFLite2.10"} for each in rows] + [row, row]

    edit(folder / NETWORKS, change)
    found = read_folder(folder)
    assert len(found.samples) == whole
    (left,) = reasons(found.left_out)
    assert (left.file, left.reason, left.names) == (NETWORKS, reason, {name: 2})
    assert left.first_line == found.left_out[0].line > 50


def test_a_kernel_of_an_unknown_operator_is_left_out_with_the_shapes_of_its_network(
    folder: Path,
) -> None:
    set_first(folder / KERNELS, "operation", "SORT")
    set_first(folder / KERNELS, "model", "net0")
    notes = [each.note() for each in reasons(read_folder(folder).left_out)]
    assert notes[0] == "not predicted, no such operator is predicted (from line 2): SORT 1"
    assert notes[1].startswith(
        "not predicted, layers of the network are not known (from line 2): net0"
    )


def test_a_network_of_which_a_folder_lacks_layers_is_not_predicted_as_a_whole(
    folder: Path,
) -> None:
    """Where its rows say how much arithmetic it has."""

    def name_arithmetic(rows: Rows) -> None:
        flops: dict[str, float] = {}
        with (folder / KERNELS).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["soc"] == "snapdragon-855":
                    flops[row["model"]] = flops.get(row["model"], 0.0) + float(row["flops"])
        for row in rows:
            row["flops"] = str(flops[row["model"]])

    edit(folder / NETWORKS, name_arithmetic)
    assert not read_folder(folder).left_out

    def drop(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["model"] != "net3" or int(row["op_row"]) % 2]

    edit(folder / KERNELS, drop)
    assert {(row.file, row.name) for row in read_folder(folder).left_out} == {(NETWORKS, "net3")}


def test_a_new_mix_of_cores_is_predicted(folder: Path) -> None:
    """Clusters together, of which only one core each was measured."""

    def change(rows: Rows) -> None:
        place = next(n for n, row in enumerate(rows) if row["proc"].lower() == "cpu")
        rows.append({**rows[place], "cores": "1large2med4small", "soc": "snapdragon-855"})

    edit(folder / NETWORKS, change)
    samples = read_folder(folder).samples
    (mixed,) = (s for s in samples if s.processor == "cpu:1prime+2big+4little")
    outcome = cross_validate(samples, BY_MODEL, lambda name: None)
    assert outcome is not None
    place = [s.processor for s in outcome.samples].index(mixed.processor)
    assert np.isfinite(outcome.predicted[place])


def test_columns_may_come_in_any_order_with_others_and_a_byte_order_mark(folder: Path) -> None:
    expected = [sample.measured_us for sample in read_folder(folder).samples]
    for name in (KERNELS, NETWORKS):
        path = folder / name
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{"note": "x", **row} for row in csv.DictReader(file)]
        write_csv(path, tuple(reversed(rows[0])), rows)
        path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert [sample.measured_us for sample in read_folder(folder).samples] == expected


@pytest.mark.parametrize("text", ["", "\n", "model,soc\n"])
def test_an_empty_file_names_the_column_that_is_missing(folder: Path, text: str) -> None:
    (folder / NETWORKS).write_text(text)
    with pytest.raises(UsageError, match=rf"{NETWORKS}: column .* is missing"):
        read_folder(folder)


def test_a_file_of_a_heading_alone_has_no_rows(folder: Path) -> None:
    heading = (folder / NETWORKS).read_text(encoding="utf-8").splitlines()[0]
    (folder / NETWORKS).write_text(heading + "\n")
    found = read_folder(folder)
    assert set(found.counts) == {"gpu_ops_tflite"}
    assert not found.skipped


def test_networks_without_their_shapes_say_where_those_come_from(folder: Path) -> None:
    (folder / KERNELS).unlink()
    with pytest.raises(UsageError, match=r"rows of e2e_tflite.* layers .* gpu_ops_tflite.csv"):
        read_folder(folder)


def test_what_was_measured_on_no_other_chip_is_not_predicted_there(folder: Path) -> None:
    """CPUs of one chip and GPUs of another: neither says anything of the other."""

    def change(rows: Rows) -> None:
        gpu, cpu = "snapdragon-855", "snapdragon-710"
        rows[:] = [r for r in rows if r["soc"] == (gpu if r["proc"].lower() == "gpu" else cpu)]

    edit(folder / NETWORKS, change)
    samples = read_folder(folder).samples
    for outcome in (
        cross_validate(samples, BY_SOC, lambda name: None),
        from_data_sheets(samples, lambda name: None),
    ):
        assert outcome is not None
        assert {sample.kind for sample in outcome.samples} == {"gpu"}
        assert np.isfinite(outcome.predicted).all()


NCNN = ("device", "num_threads", "powersave", "gpu_device", "model", "avg_ms")


def test_another_engine_alone_cannot_be_fitted_on_cpus(tmp_path: Path) -> None:
    """It is a multiple of the one whose kernels were measured: said so, not guessed."""
    rows = [
        dict(zip(NCNN, (f"Snapdragon {chip}", 1, 2, -1, model, 10.0), strict=True))
        for chip in ("855+", "835")
        for model in ("resnet50", "vgg16")
    ]
    write_csv(tmp_path / "cpu_gpu_ncnn.csv", NCNN, rows)
    samples = read_folder(tmp_path).samples
    assert len(samples) == 4
    assert cross_validate(samples, BY_MODEL, lambda name: None) is None
    with pytest.raises(UsageError, match=r"no measurements to fit: of tflite"):
        fit(samples)


SINGLE_COSTS = {
    "layout_sd855.csv": (
        "soc,item,method,latency_ms",
        "Snapdragon855,conv3x3 64x64x64->64,GPU image,1.7",
        ("Snapdragon855,matmul,GPU image,1", "Toaster,conv3x3 64x64x64->64,GPU image,1"),
    ),
    "power_sd855.csv": (
        "soc,method,avg_power_W",
        "Snapdragon865,MACE-CPU,6.6",
        ("Snapdragon855,MACE-FPGA,3", "Toaster,MACE-GPU,3"),
    ),
    "cpu_power_freqbench.csv": (
        "soc,CPU,Frequency (kHz),Power (mW)",
        "Snapdragon855,4,1804800,500",
        ("Snapdragon855,8,1804800,500", "Toaster,4,1804800,500"),
    ),
    "training_cpu_sd855.csv": (
        "soc,model,batch,train_step_ms",
        "Snapdragon855,Alexnet,4,857",
        ("Toaster,Alexnet,4,857",),
    ),
}


@pytest.mark.parametrize("name", SINGLE_COSTS)
def test_single_costs_of_what_nobody_described_are_named_beside_the_others(
    tmp_path: Path, name: str
) -> None:
    heading, known, unknown = SINGLE_COSTS[name]
    (tmp_path / name).write_text("\n".join((heading, known, *unknown, "")), encoding="utf-8")
    found = check_folder(tmp_path, shipped())
    assert sum(check.rows for check in found) == 1
    notes = [check.note for check in found if check.note.startswith("not predicted, ")]
    assert len(notes) == len(unknown)
    assert notes[-1] == (
        f"not predicted, no machine file of the chip (from line {2 + len(unknown)}): Toaster 1"
    )
