"""Machine files: what is written is read back, and every bad key is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coexec import rates as rates_module
from coexec.base.errors import SaveError, UsageError
from coexec.core.machine import Link, Machine, Rates, Silicon
from coexec.core.machine_file import read_machine, write_machine
from coexec.rates import machine_rates

RATES = Rates(
    {"float32": 350.0, "float64": 170.5}, 46.1, 1.1, 17.5, {"write": Link(17.5, 28.5)}, "driver 1"
)
WITH_SILICON = replace(RATES, silicon=Silicon("gpu", 20, 8 << 30, unified_memory=False))
MACHINE = Machine(
    "laptop", "2026-01-31T10:00:00+00:00", {"opencl:pocl": RATES, "opencl:gpu": WITH_SILICON}
)


def test_a_machine_survives_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    write_machine(MACHINE, path)
    assert read_machine(path) == MACHINE


def test_figures_are_rounded_to_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    rates = Rates({"float32": 123.456789}, 1.0, 0.0, 0.0)
    write_machine(Machine("m", "2026-01-31", {"p": rates}), path)
    assert "123.5" in path.read_text()
    assert "123.45" not in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "laptop"\n', "", "name is missing"),
        ("sync_us = 17.5\n", "", "processors.opencl:pocl.sync_us is missing"),
        ("sync_us = 17.5", "sync_us = -1", "processors.opencl:pocl.sync_us is -1"),
        ("sync_us = 17.5", "sync_us = nan", "sync_us is nan"),
        ("sync_us = 17.5", "sync_us = true", "sync_us is True; a number is wanted"),
        ("sync_us = 17.5", 'sync_us = "fast"', "sync_us is 'fast'; a number is wanted"),
        ("bandwidth_gbps = 46.1", "bandwidth_gbps = 0", "bandwidth_gbps is 0"),
        ("float32 = 350.0\n", "", "peak_gflops.float32 is missing"),
        ("float32 = 350.0", "float32 = inf", "peak_gflops.float32 is inf"),
        ("gbps = 28.5", "gbs = 28.5", "links.write.gbps is missing"),
        ("latency_us = 17.5\n", "latency_us = 17.5\nhops = 1\n", "links.write.hops is unknown"),
        ("sync_us = 17.5", "sync_us = 17.5\nspeed = 1", "speed is unknown; known: bandwidth_gbps"),
        ("name =", "name", "is not a TOML file"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "machine.toml"
    write_machine(MACHINE, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_machine(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_and_unwritable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml"):
        read_machine(tmp_path / "absent.toml")
    with pytest.raises(SaveError, match=r"machine\.toml"):
        write_machine(MACHINE, tmp_path / "no" / "machine.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        read_machine(tmp_path / "binary.toml")


def test_a_processor_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path))
    measured: list[str] = []

    def measure(spec: str) -> Rates:
        measured.append(spec)
        return RATES

    monkeypatch.setattr(rates_module, "measure_processor", measure)
    seen: list[str] = []
    first = machine_rates(["reference"], observe=seen.append)
    second = machine_rates(["reference"], observe=seen.append)
    assert measured == seen == ["reference"]
    assert first == second
    again = machine_rates(["reference"], refresh=True).processors["reference"]
    assert replace(again, silicon=None) == RATES
    assert again.silicon is not None
    assert again.silicon.kind == "cpu"
    assert len(measured) == 2
    (kept,) = (tmp_path / "machines").iterdir()
    kept.write_text("damaged")
    assert machine_rates(["reference"]).processors == {"reference": again}
    assert len(measured) == 3
