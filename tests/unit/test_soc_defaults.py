"""What is assumed of a chip that nobody measured comes from those that were, and from no other."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest

from coexec.base.errors import UsageError
from coexec.core.soc import Gpu, Soc
from coexec.core.soc_file import find_soc, soc_names
from coexec.core.soc_source import MEASURED
from coexec.cost.soc.defaults import FLOATS_OF_SUCCESSOR, IN_ORDER, Defaults, sustained

CHIPS = tuple(map(find_soc, soc_names()))
BELIEVED = 1 / 2
"""Of what sets a family with one member apart."""


def gpu_of(soc: Soc) -> Gpu:
    assert soc.gpu is not None
    return soc.gpu


@pytest.mark.parametrize("name", soc_names())
def test_files_hold_these_figures_where_nothing_was_measured(name: str) -> None:
    """Written there, so that a file is complete: ``fill`` changes nothing but digits."""
    soc = find_soc(name)
    filled = Defaults(CHIPS).fill(soc)
    for own, expected in zip(soc.clusters, filled.clusters, strict=True):
        assert own.sustained_share == pytest.approx(expected.sustained_share, rel=0.006)
    gpu, expected_gpu = gpu_of(soc), gpu_of(filled)
    assert gpu.sustained_share == pytest.approx(expected_gpu.sustained_share, rel=0.006)
    assert gpu.kernel_us == pytest.approx(expected_gpu.kernel_us, rel=0.006)
    assert soc.memory.gpu_gbps == pytest.approx(filled.memory.gpu_gbps, rel=0.006)
    dispatch, expected_dispatch = soc.latency.gpu_dispatch, filled.latency.gpu_dispatch
    assert dispatch.median_us == pytest.approx(expected_dispatch.median_us, rel=0.006)


@pytest.mark.parametrize("name", soc_names())
def test_nothing_that_was_measured_on_a_chip_is_left_of_it(name: str) -> None:
    """Whatever its measured figures are: a data sheet alone predicts the same."""
    soc = find_soc(name)
    defaults = Defaults(CHIPS, without=name)
    other = replace(
        soc,
        gpu=replace(gpu_of(soc), sustained_share=0.01, kernel_us=999.0),
        memory=replace(soc.memory, gpu_gbps=0.1),
        clusters=tuple(
            replace(each, sustained_share={"float32": 0.01, "int8": 0.01}) for each in soc.clusters
        ),
    )
    assert defaults.fill(other, replace_measured=True) == defaults.fill(soc, replace_measured=True)
    figures = [each for known in defaults.figures.values() for each in known]
    assert not any(name in each.chips for each in figures)


def test_what_was_measured_against_a_chip_goes_with_it() -> None:
    """The share of Snapdragon 845's GPU is a multiple of that of 855's."""
    assert find_soc("snapdragon-845").sources["gpu.sustained_share"].basis == MEASURED
    known = {chip for each in Defaults(CHIPS).figures["rate"] for chip in each.chips}
    assert {"snapdragon-835", "snapdragon-845", "snapdragon-855"} <= known
    left = {c for e in Defaults(CHIPS, "snapdragon-855").figures["rate"] for c in e.chips}
    assert left == {"apple-a10", "helio-p35", "snapdragon-710"}


def test_half_of_what_sets_one_member_of_a_family_apart_is_believed() -> None:
    soc = find_soc("helio-p35")
    alone = [find_soc("apple-a10"), find_soc("snapdragon-855")]
    share = gpu_of(Defaults([*alone, find_soc("snapdragon-865")]).fill(soc, replace_measured=True))
    kin, stranger = (gpu_of(each).sustained_share for each in alone)
    middle = (kin * stranger) ** 0.5
    assert share.sustained_share == pytest.approx(kin**BELIEVED * middle ** (1 - BELIEVED))


def test_a_family_that_nobody_measured_has_the_mean_of_families() -> None:
    """Of Adreno and PowerVR, whatever the number of their chips."""
    defaults = Defaults(CHIPS)
    mali = gpu_of(defaults.fill(find_soc("exynos-9820"))).sustained_share
    shares: dict[str, list[float]] = {"adreno": [], "powervr": []}
    for soc in CHIPS:
        if soc.sources["gpu.sustained_share"].basis == MEASURED:
            shares[gpu_of(soc).family].append(gpu_of(soc).sustained_share)
    means = [_geometric_mean(each) for each in shares.values()]
    assert mali == pytest.approx(_geometric_mean(means))


def test_an_older_core_has_what_its_successor_gained_in_floats_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without Helio P35 nothing is known of Cortex-A53, nor of A35, beyond that they wait."""
    monkeypatch.setattr("coexec.cost.soc.defaults.IN_ORDER", IN_ORDER | {"Cortex-A35"})
    soc = find_soc("helio-p35")
    older = soc.clusters[0]
    cores = older, replace(older, core="Cortex-A35")
    filled = Defaults(CHIPS, without="helio-p35").fill(
        replace(soc, clusters=cores), replace_measured=True
    )
    small, large = (each.sustained_share for each in filled.clusters)
    gained = FLOATS_OF_SUCCESSOR["Cortex-A53"]
    assert large["float32"] == pytest.approx(gained * small["float32"])
    assert large["int8"] == pytest.approx(small["int8"])


def test_what_an_older_core_reaches_says_what_its_successor_does() -> None:
    """Snapdragon 835's A73 counts as an A75 with a third more, among all that do not wait."""
    known = {each.kinds[1]: each for each in Defaults(CHIPS).figures["float32"]}
    gained = FLOATS_OF_SUCCESSOR["Cortex-A73"]
    assert exp(known["Cortex-A73"].log_ratio) == pytest.approx(known["Cortex-A73"].value * gained)
    assert exp(known["Cortex-A75"].log_ratio) == pytest.approx(known["Cortex-A75"].value)


def _geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def test_a_faster_gpu_streams_more_and_starts_sooner_within_bounds() -> None:
    """Not more than DRAM gives, not sooner than any that was measured."""
    defaults = Defaults(CHIPS)
    soc = find_soc("exynos-9820")
    last = None
    for times in (0.25, 0.5, 1.0, 2.0, 4.0, 16.0):
        rates = {name: times * rate for name, rate in gpu_of(soc).gflops.items()}
        filled = defaults.fill(replace(soc, gpu=replace(gpu_of(soc), gflops=rates)))
        assert filled.memory.gpu_gbps <= 0.8 * soc.memory.peak_gbps * 1.0001
        assert gpu_of(filled).kernel_us >= 4.5
        if last is not None:
            assert sustained(gpu_of(filled)) > sustained(gpu_of(last))
            assert filled.memory.gpu_gbps >= last.memory.gpu_gbps
            assert gpu_of(filled).kernel_us <= gpu_of(last).kernel_us
        last = filled


def test_without_a_measured_chip_there_are_no_defaults() -> None:
    with pytest.raises(UsageError, match=r"no chip is left on which rate was measured"):
        Defaults([find_soc("exynos-9820")])
