"""``coexec simulate``: phones as people simulate them, and what they are told when that fails."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import coexec as package
from coexec.cli.output import console
from coexec.core.soc_file import FOLDER
from coexec.frontend.export import save_model
from coexec.placement.policies.table import NAMES
from coexec.simulate import Setup, Simulation, Subject, simulate
from coexec.study.plans import feeds_of
from coexec.zoo.catalog import build
from tests.pipeline.command import coexec, failed

SOC, OTHER = "snapdragon-865", "snapdragon-855"
PAIR = ("--processors", "cpu,gpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "digits.onnx"
    save_model(build("digits_cnn", batch=None), path)
    return path


def test_help_shows_an_example() -> None:
    assert "Example: coexec simulate" in coexec("simulate", "--help").out


def test_one_phone_as_json(model: Path) -> None:
    record = coexec("simulate", model, *PAIR, "--runs", "3", "--json").record
    (result,) = record["results"]
    assert result["machine"] == SOC
    assert len(result["latencies_ms"]) == 3
    assert result["ms"] == pytest.approx(sorted(result["latencies_ms"])[1])
    assert result["energy_mj"]["rest of the phone"] > 0
    assert 0 < max(result["busy"].values()) <= 1 + 1e-9
    assert result["copies"] >= 2
    assert 0 < result["needed_bytes"] < result["free_bytes"]
    assert set(result["plan"].values()) <= {
        f"sim:{SOC}/{name}?numerics=none" for name in ("cpu", "gpu")
    }


def test_phones_and_policies_in_one_table(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "all.svg"
    options = (*PAIR, "--machine", f"{SOC},{OTHER}", "--policy", "all", "--compare", picture)
    results = coexec("simulate", model, *options, "--runs", "1", "--json").record["results"]
    assert {each["policy"] for each in results} <= set(NAMES)
    for soc in (SOC, OTHER):
        mine = [each["ms"] for each in results if each["machine"] == soc]
        assert len(mine) > 3
        assert mine == sorted(mine)
    drawn = picture.read_text()
    assert drawn.count("single_best") == 2
    for words in (model.name, "latency, ms", "energy of the whole phone, mJ"):
        assert f">{words}" in drawn


def test_policies_by_name_beside_each_other(model: Path) -> None:
    options = (*PAIR, "--machine", f"{SOC},{OTHER}", "--policy", "single_best,heft", "--runs", "1")
    results = coexec("simulate", model, *options, "--json").record["results"]
    asked = [(soc, policy) for soc in (SOC, OTHER) for policy in ("single_best", "heft")]
    assert [(each["machine"], each["policy"]) for each in results] == asked
    assert coexec("simulate", model, *options).out.count("heft") >= 2


def test_conditions_and_engines_for_people(model: Path) -> None:
    options = ("--condition", "idle,hot", "--engine", "coexec,stock-mnn-opencl", "--runs", "1")
    done = coexec("simulate", model, *PAIR, "--machine", f"{SOC},{OTHER}", *options)
    assert done.status == 0
    for word in (OTHER, "hot", "stock-mnn-opencl", "timeline"):
        assert word in done.out


def test_a_narrow_terminal_has_all_columns(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 40)
    done = coexec("simulate", model, *PAIR, "--machine", SOC, "--runs", "1")
    assert done.out.startswith("Simulated, ")
    (header,) = (line for line in done.out.splitlines() if "timeline" in line)
    assert header.split() == ["timeline", "nodes", "load"]
    assert "…" not in done.out


def test_every_condition_changes_what_it_says() -> None:
    loaded = package.load(build("resnet18", batch=1))
    subject = Subject(loaded, feeds_of(loaded))

    def under(condition: str) -> Simulation:
        setup = Setup(SOC, ("cpu",), condition=condition, runs=20, seconds=20.0)
        (found,) = simulate(subject, setup)
        return found

    idle = under("idle")
    for name in ("loaded", "cpu-load"):
        busy = under(name)
        assert sum(busy.latencies_ms) > 1.1 * sum(idle.latencies_ms)
    hot = under("hot")
    assert hot.celsius > idle.celsius + 5
    assert hot.samples[-1].ms > idle.samples[-1].ms
    little = under("low-memory")
    assert little.free_bytes == pytest.approx(0.2 * idle.free_bytes)
    assert little.ms == pytest.approx(idle.ms)
    saver = under("battery-saver")
    assert saver.ms > 1.3 * idle.ms
    assert saver.total_j / saver.ms < 0.8 * idle.total_j / idle.ms


def test_the_same_seed_gives_the_same_times(model: Path) -> None:
    def times(seed: int) -> list[float]:
        options = (*PAIR, "--condition", "loaded", "--seed", str(seed), "--json")
        (result,) = coexec("simulate", model, *options).record["results"]
        found: list[float] = result["latencies_ms"]
        return found

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_a_training_step_with_report_and_trace(model: Path, tmp_path: Path) -> None:
    page, trace = tmp_path / "report.html", tmp_path / "run.pftrace"
    options = ("--train", "--batch-size", "8", "--energy", "--html", page, "--trace", trace)
    done = coexec("simulate", model, *PAIR, *options)
    assert done.status == 0, done.err
    assert "Energy of a run" in done.out
    assert "training step" in page.read_text()
    assert trace.stat().st_size > 1000


def test_advice_is_not_about_an_npu_that_takes_no_part(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    options = ("--processors", "gpu,cpu,npu", "--policy", "single_best", "--html", page)
    done = coexec("simulate", model, *options)
    assert done.status == 0, done.err
    assert "not on npu" in done.err
    assert "fell back" not in done.out + page.read_text()


def test_repeating_for_minutes_heats_the_phone_and_slows_it_down(model: Path) -> None:
    options = ("--processors", "cpu", "--runs", "1", "--seconds", "600", "--json")
    (result,) = coexec("simulate", model, *options).record["results"]
    samples = result["repetition"]
    assert samples[-1]["second"] > 60
    assert result["hottest_celsius"] > 40
    assert samples[-1]["ms"] > samples[0]["ms"]
    assert samples[-1]["speed"] < 1
    assert 0 < result["battery_share"] < 0.2


def small_phone(folder: Path) -> Path:
    """A phone that has a mebibyte free."""
    known = (FOLDER / f"{SOC}.toml").read_text(encoding="utf-8")
    small = re.sub(r"(?m)^system_gib = [\d.]+", "system_gib = 1.0", known)
    small = re.sub(r"(?m)^ram_gib = [\d.]+", "ram_gib = 1.001", small)
    phone = folder / "small.toml"
    phone.write_text(small, encoding="utf-8")
    return phone


def test_a_model_beyond_the_memory_says_by_how_much_and_which_tensors(
    model: Path, tmp_path: Path
) -> None:
    phone = small_phone(tmp_path)
    options = (*PAIR, "--machine", phone, "--train", "--batch-size", "256")
    message = " ".join(failed(coexec("simulate", model, *options)).split())
    assert "the model does not fit" in message
    assert "MiB too much" in message
    assert re.search(r"Largest at the peak: \S+ [\d.]+ [KM]iB", message)
    assert "Try a smaller batch" in message


def test_a_phone_that_cannot_fit_is_listed_beside_those_that_can(
    model: Path, tmp_path: Path
) -> None:
    """Whichever comes first; where none can, each is named and the command fails."""
    phone = small_phone(tmp_path)
    how = ("--train", "--batch-size", "256", "--runs", "1", "--policy", "single_best")
    options = (*PAIR, "--machine", f"{phone},{SOC}", *how)
    record = coexec("simulate", model, *options, "--json").record
    assert [each["machine"] for each in record["results"]] == [SOC]
    (refused,) = record["refused"]
    assert refused["machine"] == str(phone)
    assert "MiB too much" in refused["reason"]
    done = coexec("simulate", model, *options)
    assert "too much" in " ".join(done.err.split())
    nowhere = coexec("simulate", model, *PAIR, "--machine", f"{phone},{phone}", *how)
    assert nowhere.status == 1
    assert " ".join(nowhere.err.split()).count("too much") == 2


def test_a_budget_that_one_phone_cannot_keep_leaves_the_others(model: Path, tmp_path: Path) -> None:
    """``auto`` is what each phone has free."""
    phone = small_phone(tmp_path)
    how = ("--train", "--batch-size", "1024", "--runs", "1", "--memory", "auto", "--json")
    options = ("--processors", "cpu", "--machine", f"{SOC},{phone}", *how)
    record = coexec("simulate", model, *options).record
    assert [each["machine"] for each in record["results"]] == [SOC]
    (refused,) = record["refused"]
    assert refused["least_bytes"] > 2**20
    assert "MiB" in refused["reason"]


def test_a_training_step_keeps_a_budget_of_memory(model: Path) -> None:
    """On one processor by every technique, on several by what is recomputed."""
    how = ("--train", "--batch-size", "64", "--runs", "1", "--json")
    plain = coexec("simulate", model, *PAIR, "--policy", "all", *how).record["results"]
    budget = int(0.7 * min(each["needed_bytes"] for each in plain))
    within = (*how, "--memory", f"{budget}B")
    results = coexec("simulate", model, *PAIR, "--policy", "all", *within).record["results"]
    assert {each["memory"]["budget_bytes"] for each in results} == {budget}
    for each in results:
        assert each["memory"]["used"]
        assert each["memory"]["peak_bytes"] <= budget < each["memory"]["plain_bytes"]
    (auto,) = coexec("simulate", model, *PAIR, *within).record["results"]
    assert auto["ms"] == pytest.approx(min(each["ms"] for each in results), rel=0.05)
    (alone,) = coexec("simulate", model, "--processors", "cpu", *within).record["results"]
    assert alone["needed_bytes"] <= budget


def test_a_processor_that_cannot_train_leaves_the_budget_to_the_others(model: Path) -> None:
    how = ("--train", "--batch-size", "64", "--runs", "1", "--memory", "64MiB", "--json")
    (auto,) = coexec("simulate", model, *how).record["results"]
    assert "int8" in auto["left_out"]["single_best on npu"]
    refused = failed(coexec("simulate", model, "--processors", "npu", *how[:-1]))
    assert "no processor executes" in refused


def test_a_budget_that_no_step_keeps_says_what_stands_in_the_way(model: Path) -> None:
    how = ("--train", "--batch-size", "64", "--memory", "20KiB")
    assert "20.0 KiB" in failed(coexec("simulate", model, *PAIR, *how))
    wrong = coexec("simulate", model, *PAIR, "--memory", "1MiB")
    assert "give --train too" in failed(wrong, 2)


def test_advice_of_a_budget_on_a_phone_can_be_followed(tmp_path: Path) -> None:
    """The flags that a refusal names are there."""
    net = tmp_path / "sensor.onnx"
    save_model(build("sensor_cnn"), net)
    how = ("simulate", net, "--processors", "cpu", "--train", "--batch-size", "16", "--runs", "1")
    refused = failed(coexec(*how, "--memory", "1KiB"))
    assert "--batch-statistics ghost takes those of each part, frozen the stored ones" in refused
    assert "--memory-lossy would allow" in refused
    followed = failed(
        coexec(*how, "--memory", "1KiB", "--memory-lossy", "--batch-statistics", "ghost")
    )
    assert "--batch-statistics" not in followed
    assert "--memory-lossy" not in followed
    assert "'half' are unknown" in failed(coexec(*how, "--batch-statistics", "half"), 2)


def test_a_step_on_a_phone_may_divide_a_batch_that_the_file_leaves_open(tmp_path: Path) -> None:
    lenet = tmp_path / "lenet.onnx"
    save_model(build("lenet5"), lenet)
    how = ("simulate", lenet, "--processors", "cpu", "--train", "--batch-size", "32", "--runs", "1")
    refused = failed(coexec(*how, "--memory", "1KiB"))
    assert "no training step fits 1.0 KiB" in refused
    assert "fixed batch" not in refused
    fixed = failed(coexec(*how, "--shape", "x=32x1x28x28", "--memory", "1KiB"))
    assert "micro-batches cannot be used: input 'x' has a fixed batch of 32" in fixed


def test_the_free_memory_of_the_phone_is_a_budget(model: Path) -> None:
    options = ("--train", "--memory", "auto", "--runs", "1", "--condition", "idle,low-memory")
    results = coexec("simulate", model, *PAIR, *options, "--json").record["results"]
    for each in results:
        assert each["memory"]["budget_bytes"] == each["free_bytes"]
    assert results[0]["free_bytes"] > results[1]["free_bytes"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--machine", "snapdragon-1"), 2, SOC),
        (("--machine", "nowhere.toml"), 2, "nowhere.toml"),
        (("--processors", "tpu"), 1, "cpu, gpu, npu"),
        (("--condition", "sunny"), 2, "battery-saver"),
        (("--policy", "best"), 2, "single_best"),
        (("--engine", "fast"), 2, "stock-mnn-opencl"),
        (("--engine", ","), 2, "names nothing"),
        (("--precision", "float8"), 2, "float16"),
    ],
)
def test_a_wrong_option_lists_what_is_known(
    model: Path, options: tuple[str, ...], status: int, message: str
) -> None:
    assert message in failed(coexec("simulate", model, *options), status)


def test_virtual_minutes_take_no_time_of_note() -> None:
    """Ten virtual minutes: counted in simulated runs, as a clock would be flaky."""
    loaded = package.load(build("digits_cnn", batch=1))
    feeds = {"x": np.zeros((1, 1, 8, 8), np.float32)}
    (result,) = simulate(Subject(loaded, feeds), Setup(SOC, ("gpu",), runs=1, seconds=600.0))
    runs = 600e3 / result.samples[0].ms
    assert len(result.samples) < runs / 1000
