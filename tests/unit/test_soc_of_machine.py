"""A measured PC in place of a phone: rates as they were measured, bad files are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coexec.base.errors import ProcessorError, UsageError
from coexec.core.machine import Link, Machine, Rates, Silicon
from coexec.core.machine_file import write_machine
from coexec.core.soc_of_machine import soc_of_machine
from coexec.core.soc_source import MEASURED
from coexec.cost.soc.limits import limits_of
from coexec.simulate import Setup, Subject, machine_named, simulate
from coexec.study.plans import feeds_of
from coexec.zoo.catalog import build
from tests.pipeline.command import coexec, failed

CPU = Rates(
    {"float32": 200.0, "float64": 100.0},
    36.0,
    2.0,
    17.0,
    {"write": Link(10.0, 10.0), "read": Link(12.0, 8.0)},
    silicon=Silicon("cpu", 2, 16 << 30, unified_memory=True),
)
GPU = replace(
    CPU,
    peak_gflops={"float32": 5000.0, "float16": 10_000.0},
    bandwidth_gbps=300.0,
    silicon=Silicon("gpu", 20, 8 << 30, unified_memory=False),
)
SLOW = replace(CPU, peak_gflops={"float32": 3.0})
HERE = Path("desk.toml")


def desk(**processors: Rates) -> Machine:
    return Machine("My desk", "2026-01-31", processors)


def test_rates_are_those_of_the_fastest_processor_of_each_kind() -> None:
    soc = soc_of_machine(desk(slow=SLOW, cpu=CPU, gpu=GPU), HERE)
    assert soc.name == "my-desk"
    assert soc.processors == ("cpu", "gpu")
    cpu, gpu = limits_of(soc, "cpu", "float32"), limits_of(soc, "gpu", "float16")
    assert (cpu.peak_gflops, cpu.gbps) == pytest.approx((200.0, 36.0))
    assert (gpu.peak_gflops, gpu.gbps) == pytest.approx((10_000.0, 300.0))
    assert soc.latency.gpu_sync.median_us == pytest.approx(15.0)
    assert soc.memory.shared_gbps == pytest.approx(336.0)
    assert soc.sources["gpu.gflops"].basis == MEASURED
    assert soc.sources["thermal.kelvin_per_watt"].basis == "assumed"


def test_a_pc_without_a_gpu_has_none() -> None:
    soc = soc_of_machine(desk(cpu=CPU), HERE)
    assert soc.processors == ("cpu",)
    with pytest.raises(ProcessorError, match="has no 'gpu'; it has cpu"):
        limits_of(soc, "gpu", "float32")


def test_twice_the_machine_takes_less_time(tmp_path: Path) -> None:
    model = build("lenet5", 1)
    found = []
    for factor in (1.0, 2.0):
        path = tmp_path / f"desk{factor:g}.toml"
        peaks = {name: factor * rate for name, rate in CPU.peak_gflops.items()}
        twice = replace(CPU, peak_gflops=peaks, bandwidth_gbps=factor * 36.0)
        write_machine(desk(cpu=twice), path)
        (result,) = simulate(Subject(model, feeds_of(model)), Setup(str(path), runs=1))
        assert result.battery_share == 0.0
        found.append(result.ms)
    assert found[1] < 0.8 * found[0]


def test_the_command_simulates_a_measured_pc(tmp_path: Path) -> None:
    zoo, path = tmp_path / "model.onnx", tmp_path / "desk.toml"
    assert coexec("zoo", "lenet5", "--out", zoo, "--batch", "1").status == 0
    write_machine(desk(cpu=CPU, gpu=GPU), path)
    options = ("--energy", "--runs", "1")
    text = coexec("simulate", zoo, "--machine", path, *options).out
    assert "My desk (measured)" in text
    assert failed(coexec("simulate", zoo, "--machine", path, "--processors", "npu"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('kind = "cpu"', 'kind = "car"', "processors.cpu.silicon.kind is 'car'"),
        ('kind = "cpu"', 'kind = "gpu"', "processors has none whose silicon.kind is 'cpu'"),
        ("compute_units = 2", "cores = 2", "silicon.compute_units is missing"),
        ("bandwidth_gbps = 36.0", "bandwidth_gbps = 0", "cpu.bandwidth_gbps is 0"),
        ("[processors.cpu.silicon]", "[processors.cpu.links.map]", "links.map.latency_us"),
        ("[processors.", "[sockets.", "sources is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "desk.toml"
    write_machine(desk(cpu=CPU), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError) as caught:
        machine_named(str(path))
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_rates_without_silicon_have_to_be_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    write_machine(desk(cpu=replace(CPU, silicon=None)), path)
    with pytest.raises(UsageError, match=r"processors\.cpu\.silicon is missing.*measure again"):
        machine_named(str(path))
