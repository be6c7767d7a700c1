"""Machine files of phones: complete, plausible, every figure with a source, every bad key named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from coexec.base.errors import ProcessorError, UsageError
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc, knows_soc, read_soc, soc_in, soc_names
from coexec.core.soc_source import ASSUMED, MEASURED, SPECIFIED

FILE = Path(__file__).parents[2] / "coexec" / "machines" / "snapdragon-865.toml"
WANTED = {
    "snapdragon-710", "snapdragon-765g", "snapdragon-845", "snapdragon-855", "snapdragon-865",
    "snapdragon-888", "snapdragon-8-gen-2", "snapdragon-8-gen-3", "snapdragon-8-elite",
    "exynos-9820", "kirin-810", "kirin-990", "dimensity-9300", "helio-p35", "apple-a10",
    "apple-a12", "tensor-g1", "tensor-g2", "rk3588",
}  # fmt: skip


@pytest.fixture(params=soc_names())
def soc(request: pytest.FixtureRequest) -> Soc:
    return find_soc(request.param)


def test_every_chip_that_studies_name_is_there() -> None:
    assert set(soc_names()) >= WANTED


def test_figures_of_a_chip_are_within_what_physics_and_markets_allow(soc: Soc) -> None:
    memory = soc.memory
    for gbps in (memory.cpu_gbps, memory.gpu_gbps, memory.npu_gbps, memory.shared_gbps):
        assert gbps <= memory.peak_gbps
    assert 0 < memory.usable_bytes < memory.ram_gib * 2**30
    for cluster in soc.clusters:
        assert 300 <= cluster.top_mhz <= 5000
        assert cluster.core_mw[-1] < 6000
        assert cluster.core_mw[-1] > cluster.core_mw[0]
        assert cluster.sustained_gflops("float32") < cluster.gflops("float32") < 200
        assert cluster.gbps <= memory.peak_gbps
    assert soc.gpu is not None
    assert soc.gpu.gflops["float16"] == 2 * soc.gpu.gflops["float32"]
    assert soc.gpu.step_mw[-1] < 10_000
    rc_seconds = soc.thermal.kelvin_per_watt * soc.thermal.joule_per_kelvin
    assert 30 < rc_seconds < 600
    for name in soc.latency.__dataclass_fields__:
        figure = getattr(soc.latency, name)
        if not isinstance(figure, float):
            assert 0 <= figure.p10_us <= figure.median_us <= figure.p90_us


def test_every_figure_says_where_it_is_from(soc: Soc) -> None:
    assert {source.basis for source in soc.sources.values()} <= {MEASURED, SPECIFIED, ASSUMED}
    for path in ("memory.peak_gbps", "gpu.gflops", "thermal.battery_wh", "latency.gpu_sync"):
        assert soc.sources[path].text


def test_a_newer_chip_of_a_line_is_not_slower() -> None:
    line = [find_soc(f"snapdragon-{name}") for name in ("845", "855", "865", "888", "8-gen-2")]
    for older, newer in pairwise(line):
        assert newer.gpu is not None
        assert older.gpu is not None
        assert newer.gpu.gflops["float32"] > older.gpu.gflops["float32"]
        assert newer.memory.peak_gbps >= older.memory.peak_gbps


def test_a_chip_is_found_by_the_names_that_measurements_use() -> None:
    assert find_soc("Snapdragon855") is find_soc("snapdragon-855")
    assert knows_soc("Samsung Galaxy S24")
    assert not knows_soc("Snapdragon 1")
    aliases = [alias for name in soc_names() for alias in find_soc(name).aliases]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qualcomm SM8150-AC Snapdragon 855+ (Kyro485 2.96 GHz + 2.42 GHz x 3)", "855-plus"),
        ("Qualcomm MSM8998 Snapdragon 835 (Kyro 2.45GHz x 4 + Adreno 540)", "835"),
        ("SNAPDRAGON 8 Gen 2", "8-gen-2"),
        ("Snapdragon855 (Pixel 4)", "855"),
        ("snapdragon_765g", "765g"),
        ("Snapdragon 8 Elite QRD", "8-elite"),
        ("SM8550", "8-gen-2"),
        ("QCS8550 (Proxy)", "8-gen-2"),
        ("kalama", "8-gen-2"),
        ("Samsung Galaxy S23 (Family)", "8-gen-2"),
        ("Samsung Galaxy S24 Ultra", "8-gen-3"),
        ("SM8150", "855"),
        ("SM8150-AC", "855-plus"),
        ("SDM845", "845"),
        ("Snapdragon SDM 855", "855"),
    ],
)
def test_a_chip_is_found_in_a_longer_text(text: str, name: str) -> None:
    found = soc_in(text)
    assert found is not None
    assert found.name == f"snapdragon-{name}"


@pytest.mark.parametrize(
    "text",
    [
        "Snapdragon 888+",
        "Snapdragon 8s Gen 3",
        "Snapdragon 8 Elite Gen 5",
        "Snapdragon 8",
        "SM8350-AC",
        "Snapdragon 8+ Gen 1",
        "Google Tensor G4",
        "Samsung Galaxy S23 FE",
    ],
)
def test_a_chip_that_only_begins_like_a_known_one_is_unknown(text: str) -> None:
    assert soc_in(text) is None


def test_an_unknown_chip_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown machine 'phone'; known: apple-a10, apple-a12"):
        find_soc("phone")


def test_mixes_of_cores() -> None:
    soc = find_soc("snapdragon-865")
    assert [(each.name, count) for each, count in soc.cores("cpu")] == [("prime", 1), ("big", 3)]
    assert [(each.name, count) for each, count in soc.cores("cpu:2big+4little")] == [
        ("big", 2),
        ("little", 4),
    ]
    with pytest.raises(ProcessorError, match=r"has 3 big cores, not 4"):
        soc.cores("cpu:4big")
    with pytest.raises(ProcessorError, match=r"write a mix of cores as cpu:1prime\+3big"):
        soc.cores("cpu:big")
    with pytest.raises(ProcessorError, match=r"has no cluster 'prime'; it has big, little"):
        find_soc("apple-a10").cores("cpu:1prime")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("peak_gbps = 44.0\n", "", "memory.peak_gbps is missing"),
        ("peak_gbps = 44.0", "peak_gbps = -1", "memory.peak_gbps is -1; it must be finite"),
        ("gpu_gbps = 28.8", "gpu_gbps = 99", "memory.gpu_gbps is above peak_gbps, 44"),
        ("system_gib = 3.0", "system_gib = 12", "memory.system_gib is 12, all of ram_gib or more"),
        ("wave = 64", "waves = 64", "gpu.wave is missing"),
        ("wave = 64", "wave = 64\ncolour = 1", "gpu.colour is unknown; known: "),
        ("static_shapes = true", "static_shapes = 1", "npu.static_shapes is 1; true or false"),
        ("mhz = [500, 750, 1000]", "mhz = [500, 400, 1000]", "npu.mhz is [500, 400, 1000]; rising"),
        ("step_mw = [851,", "step_mw = [1, 851,", "npu.step_mw wants 3 numbers above 0"),
        ("gpu_sync = [300,", "gpu_sync = [", "latency.gpu_sync is [340, 400]; 3 numbers"),
        ("float32 = 0.699,", "float32 = 7,", "cpu.prime.sustained_share.float32 is 7; a part of 1"),
        ('basis = "assumed"', 'basis = "guess"', "sources.default.basis is 'guess'; one of"),
        ('gpu_sync = "study"', 'gpu_sync = "me"', "latency.sources.gpu_sync is 'me'; [sources]"),
        (', "*" = "brief"', "", "cpu.prime.sources.* is missing"),
    ],
)
def test_a_bad_figure_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "phone.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        read_soc(path)
    assert f"{path}: {complaint}" in str(raised.value)
