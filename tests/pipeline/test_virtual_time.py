"""Simulated processors are timed by their own clock, whichever command runs a model on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import pytest

import coexec
from coexec.core.timeline import clock_name, clock_of
from coexec.processors.find import open_processor
from coexec.rates import machine_rates
from coexec.zoo.catalog import build
from tests.pipeline.command import coexec as command
from tests.pipeline.small import FEATURES, network, write_data, write_network

PHONE = "sim:snapdragon-865/"
GPU = PHONE + "gpu"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@contextmanager
def virtual_ms() -> Iterator[list[float]]:
    """Receives the milliseconds of virtual time that pass on the phone meanwhile."""
    clock = clock_of([open_processor(GPU)])
    passed: list[float] = []
    start = clock()
    yield passed
    passed.append((clock() - start) * 1e3)


def test_runs_take_virtual_time(model: Path) -> None:
    how = ("run", model, "--shape", f"x=1x{FEATURES}", "-p", GPU, "--repeat", "9", "--json")
    with virtual_ms() as passed:
        record = command(*how).record
    assert record["clock"] == "virtual"
    # The first of ten runs brings the parameters.
    assert record["median_ms"] == pytest.approx(passed[0] / 10, rel=0.5)


def test_the_table_of_a_run_says_whose_time_it_is(model: Path) -> None:
    shown = command("run", model, "--shape", f"x=1x{FEATURES}", "-p", GPU).out
    assert "in virtual time" in " ".join(shown.split())
    assert "1 run)" in shown
    here = command("run", model, "--shape", f"x=1x{FEATURES}", "-p", "reference").out
    assert "virtual" not in here


def test_training_steps_take_virtual_time(model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.npz")
    how = ("train", model, "--data", data, "--epochs", "1", "--batch-size", "8", "-p", GPU)
    with virtual_ms() as passed:
        record = command(*how, "--json").record
    assert record["clock"] == "virtual"
    assert record["step_ms_median"] == pytest.approx(passed[0] / record["steps"], rel=0.5)
    assert "ms of virtual time" in command(*how).out


def test_profiles_in_virtual_time_tell_no_costs_of_tracing(model: Path) -> None:
    how = ("profile", model, "--shape", f"x=1x{FEATURES}", "-p", GPU, "--steps", "3")
    with virtual_ms() as passed:
        record = command(*how, "--json").record
    assert record["wall_ms"] == pytest.approx(passed[0] / 4, rel=0.5)
    assert record["steps"] == 3
    assert record["overhead"]["fraction"] == 0.0
    shown = command(*how).out
    assert "profiling costs" not in shown
    assert "virtual time, the median of 3 steps" in " ".join(shown.split())


def test_advice_compares_a_phone_with_its_own_cpu_only(tmp_path: Path) -> None:
    model = tmp_path / "cnn.onnx"
    ir.save(build("digits_cnn"), model)
    how = ("profile", model, "--batch-size", "1", "--steps", "1", "--json")
    alone = command(*how, "-p", GPU).record
    assert not [each for each in alone["advice"] if "CPU would be faster" in each["title"]]
    beside = command(*how, "-p", GPU, "-p", PHONE + "cpu").record
    assert [each for each in beside["advice"] if "CPU would be faster" in each["title"]]


def test_limits_of_a_simulated_processor_follow_its_options() -> None:
    half, single = GPU + "?precision=float16", GPU + "?precision=float32"
    rates = machine_rates([half, single]).processors
    assert machine_rates([single, half]).processors == rates


def test_the_clock_of_processors_is_that_of_the_first() -> None:
    session = coexec.compile(coexec.load(network(), shapes={"x": (1, FEATURES)}), [GPU])
    assert clock_name(session.processors.values()) == "virtual"
    assert clock_name(list(session.processors.values())[1:]) == "host"
