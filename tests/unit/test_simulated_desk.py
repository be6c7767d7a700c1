"""A measured PC simulated beside itself: a line for each model, the error against the fastest."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import simulated_desk
from bench.simulated_desk import Line, inference, training
from coexec.core.machine_file import write_machine
from tests.unit.test_soc_of_machine import CPU, desk


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(simulated_desk, "RUNS", 1)
    monkeypatch.setattr(simulated_desk, "SECONDS", 0.0)
    write_machine(desk(cpu=CPU), tmp_path / "desk.toml")
    return str(tmp_path / "desk.toml")


def test_the_error_is_against_the_fastest_processor() -> None:
    assert Line("any", 3.0, {"slow": 8.0, "fast": 4.0}).error == pytest.approx(-0.25)


def test_a_run_and_a_step_are_predicted_and_run(machine: str) -> None:
    lines = (
        inference("digits_cnn", machine, ("reference",)),
        training("digits_cnn", 2, machine, ("reference",)),
    )
    for line in lines:
        assert 0 < line.predicted_ms < 100
        assert set(line.real_ms) == {"reference"}
        assert line.real_ms["reference"] > 0
    assert lines[1].predicted_ms > lines[0].predicted_ms
