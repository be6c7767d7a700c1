"""Whole networks on every chip: times, watts and their order are those that phones can have."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest

from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc, soc_names
from coexec.cost.calibration.frameworks import fastest_cores
from coexec.cost.calibration.zoo_networks import fused_layers, zoo_layers
from coexec.cost.soc.coefficients import shipped
from coexec.cost.soc.estimate import LIKE, network_us
from coexec.cost.soc.limits import limits_of

NETWORKS = ("mobilenetv2", "resnet50", "efficientnet_b0", "vit_tiny")
SNAPDRAGONS = ("845", "855", "865", "888", "8-gen-1", "8-gen-2", "8-gen-3", "8-elite")
LINES = {
    "snapdragon": SNAPDRAGONS,
    "kirin": ("970", "980", "990", "9000"),
    "dimensity": ("9000", "9300"),
    "apple": ("a10", "a12", "a14"),
}
"""Chips of one maker and class, by year."""
NPU_LINES = {
    "snapdragon": SNAPDRAGONS,
    "kirin": ("990", "9000"),
    "dimensity": ("9000", "9300"),
    "apple": ("a12", "a14"),
    "tensor": ("g1", "g2", "g3"),
}
"""NPUs by one designer: those of Kirin 970 and 980 are not Huawei's own."""
LITTLE_LINES = {
    4: ("snapdragon-888", "snapdragon-8-gen-1", "dimensity-9000"),
    2: ("snapdragon-888", "tensor-g3", "snapdragon-8-gen-2", "snapdragon-8-gen-3"),
}
"""By number of cores in order: Cortex-A55, A510 (at two clocks in the second), A520."""
NOISE = 1.05
"""How much longer than on the chip before a network may take on cores and NPUs: a clock may be a
little lower, or what was measured of the chip before a little better than the mean of its kind."""
LEAST_W, MOST_W = 0.05, 12.0
"""What one little core and what a phone as a whole can draw."""


@cache
def run_us(chip: str, processor: str, precision: str, network: str) -> float:
    soc, kind = find_soc(chip), processor.partition(":")[0]
    layers = zoo_layers(network) if kind == "npu" else fused_layers(network)
    return network_us(shipped(), soc, processor, precision, LIKE[kind], layers)


def one_core(soc: Soc, place: int = 0) -> str:
    return f"cpu:1{soc.clusters[place].name}"


@pytest.fixture(params=soc_names())
def soc(request: pytest.FixtureRequest) -> Soc:
    return find_soc(request.param)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_little_core_is_slower_than_a_fast_one_and_this_than_four(soc: Soc, network: str) -> None:
    four, last = fastest_cores(soc, 4), one_core(soc, -1)
    for precision in ("float32", "int8"):
        fast = run_us(soc.name, one_core(soc), precision, network)
        assert 1.1 * fast < run_us(soc.name, last, precision, network) < 20 * fast
        assert fast / 4.5 < run_us(soc.name, four, precision, network) < fast


@pytest.mark.parametrize("network", NETWORKS)
def test_eight_bits_are_not_slower_where_cores_have_dot_products(soc: Soc, network: str) -> None:
    """On four cores arithmetic is the smaller part: measured: up to 1.06 on A76, 1.2 on A55."""
    rates = soc.clusters[0].flop_per_cycle
    if rates.get("int8", 0) < 4 * rates["float32"]:
        return
    for processor, most in ((one_core(soc), 1.0), (fastest_cores(soc, 4), 1.15)):
        floats = run_us(soc.name, processor, "float32", network)
        assert run_us(soc.name, processor, "int8", network) <= most * floats


@pytest.mark.parametrize("network", NETWORKS)
def test_a_gpu_takes_at_least_its_launches_and_float16_no_longer_than_float32(
    soc: Soc, network: str
) -> None:
    assert soc.gpu is not None
    launches = len(fused_layers(network)) * soc.gpu.kernel_us
    half = run_us(soc.name, "gpu", "float16", network)
    assert launches <= half <= run_us(soc.name, "gpu", "float32", network)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_npu_is_within_two_hundred_times_of_a_core_and_faster_on_large_networks(
    soc: Soc, network: str
) -> None:
    for precision in soc.npu.gops if soc.npu else ():
        us = run_us(soc.name, "npu", precision, network)
        core = run_us(soc.name, one_core(soc), "float32", network)
        assert core / 200 < us
        if network == "resnet50":
            assert us < core


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_newer_chip_of_a_line_does_not_take_longer(line: str, network: str) -> None:
    """865's core took 1.07 (int8: 1.11) of 855's time, 8 Gen 2's GPU 1.04 of 8 Gen 1's."""
    for older, newer in pairwise(find_soc(f"{line}-{name}") for name in LINES[line]):
        for precision in ("float32", "int8"):
            before = run_us(older.name, one_core(older), precision, network)
            assert run_us(newer.name, one_core(newer), precision, network) < NOISE * before
            before = run_us(older.name, fastest_cores(older, 4), precision, network)
            after = run_us(newer.name, fastest_cores(newer, 4), precision, network)
            assert after < NOISE * before
        before = run_us(older.name, "gpu", "float16", network)
        assert run_us(newer.name, "gpu", "float16", network) < before


@pytest.mark.parametrize("line", NPU_LINES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_newer_npu_of_a_line_does_not_take_longer(line: str, network: str) -> None:
    for older, newer in pairwise(find_soc(f"{line}-{name}") for name in NPU_LINES[line]):
        assert older.npu is not None
        assert newer.npu is not None
        for precision in older.npu.gops.keys() & newer.npu.gops.keys():
            before = run_us(older.name, "npu", precision, network)
            assert run_us(newer.name, "npu", precision, network) < NOISE * before


@pytest.mark.parametrize("cores", LITTLE_LINES)
@pytest.mark.parametrize("network", NETWORKS)
def test_little_cores_of_a_newer_chip_do_not_take_longer(cores: int, network: str) -> None:
    """They took up to 1.38 times as long, by the mean with Cortex-A53, older than all of them."""
    for older, newer in pairwise(LITTLE_LINES[cores]):
        for precision in ("float32", "int8"):
            before = run_us(older, f"cpu:{cores}little", precision, network)
            assert run_us(newer, f"cpu:{cores}little", precision, network) < NOISE * before


def test_watts_are_those_of_a_phone(soc: Soc) -> None:
    """Energy is time times these, beside what DRAM moves."""
    cores = [one_core(soc, place) for place in range(len(soc.clusters))]
    for processor in (*cores, fastest_cores(soc, 4), "gpu"):
        assert LEAST_W < limits_of(soc, processor, "float32").active_mw / 1e3 < MOST_W
    for precision in soc.npu.gops if soc.npu else ():
        assert LEAST_W < limits_of(soc, "npu", precision).active_mw / 1e3 < MOST_W
    # Everything that a run may move, at the DRAM's full rate.
    dram_w = soc.memory.peak_gbps * 1e9 * soc.memory.pj_per_byte * 1e-12
    assert dram_w < MOST_W / 2
