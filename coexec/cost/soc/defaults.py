"""Figures that stand on no data sheet, for chips that nobody measured: from those that were.

How much of its peak a core or a GPU sustains, what a GPU streams and its shortest kernel have to be
measured. Where they were not, a chip gets what chips of its kind have. A core has the share of its
architecture; an older one has so much less of floats as its successor is taken to have gained. A
GPU has its family's share of the nominal peak; bandwidth grows with the rate that follows, and the
shortest times shrink with it (a GPU is so many times slower in everything), not below any that was
measured. Kinds come in levels, the mean of each drawn towards the one above, which counts as one
more chip: partial pooling as in Gelman and Hill, "Data Analysis Using Regression and Multilevel/
Hierarchical Models" (2007), with as much variance between as within.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log

from coexec.base.errors import UsageError
from coexec.core.soc import Cluster, Gpu, Latency, Soc
from coexec.core.soc_source import MEASURED

IN_ORDER = frozenset({"Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520"})
"""Cores that wait for their loads (Arm's technical reference manuals): less of the peak is left."""
CPU_TYPES = ("float32", "int8")
LIKE = {"Cortex-A510": "Cortex-A55", "Cortex-A520": "Cortex-A55"} | dict.fromkeys(
    ("Cortex-A77", "Cortex-A78", "Cortex-A710", "Cortex-A715", "Cortex-A720"), "Cortex-A76"
)
"""Cores that nobody measured, and the measured one that they are developed from, with as many
multiply-adds a clock. Arm announced each as faster at one clock than the one before it (2019 to
2023), so that means with older cores are too slow a guess. Assumed: they do as it does."""
FLOATS_OF_SUCCESSOR = {"Cortex-A53": 1.38, "Cortex-A73": 1.33}
"""How many times as fast in floats the next core with the same peak is (Cortex-A55, Cortex-A75).

Specified by Arm at their announcement in 2017: Cortex-A55 1.18 to 1.38 times Cortex-A53 over
several benchmarks at one clock, Cortex-A75 a third more floats than Cortex-A73. Assumed: that the
upper end of the range, not the lower one, holds for networks in floats, where loads count most.
"""
RATE, BANDWIDTH, KERNEL, DISPATCH = "rate", "bandwidth", "kernel", "dispatch"
SYNC = "waiting for a GPU"
MOST_OF_DRAM = 0.8
"""Share of the DRAM's nominal bandwidth that a GPU is not taken to exceed: Snapdragon 855's."""
DISPATCH_ENDS = 0.75, 1.35
"""First and last decile of a dispatch over its median, as on the chips that were measured."""


@dataclass(frozen=True)
class Known:
    """A measured figure and the logarithm of a ratio of it, its kinds from general to specific.

    ``chips`` are those that it was measured on, or against.
    """

    what: str
    kinds: tuple[str, ...]
    value: float
    log_ratio: float
    chips: frozenset[str]


class Defaults:
    """What is assumed of a chip, from what was measured on others."""

    def __init__(self, chips: Iterable[Soc], without: str = "") -> None:
        """``without``: a chip of which nothing may be known, not through others either.

        Raises:
            UsageError: none of the chips has measured figures of a GPU and of cores.
        """
        figures = [figure for chip in chips for figure in _measured(chip)]
        kept = [each for each in figures if without not in each.chips]
        self.figures: dict[str, list[Known]] = defaultdict(list)
        for each in kept:
            self.figures[each.what].append(each)
        for what in (RATE, BANDWIDTH, KERNEL, DISPATCH, SYNC, *CPU_TYPES):
            if what not in self.figures:
                raise UsageError(f"no chip is left on which {what} was measured")

    def fill(self, soc: Soc, *, replace_measured: bool = False) -> Soc:
        """The chip with these figures where it has none of its own, or in place of its own."""
        clusters = tuple(
            each
            if not replace_measured and _is_measured(soc, f"cpu.{each.name}.sustained_share")
            else replace(each, sustained_share=self._shares(each))
            for each in soc.clusters
        )
        filled = replace(soc, clusters=clusters)
        if soc.gpu is None:
            return filled
        return self._with_gpu(filled, soc.gpu, replace_measured)

    def _shares(self, cluster: Cluster) -> dict[str, float]:
        return {
            name: min(
                exp(self._mean(name, _kinds_of_core(cluster, name))) / _behind(cluster, name), 1.0
            )
            for name in CPU_TYPES
        }

    def _with_gpu(self, soc: Soc, gpu: Gpu, replace_measured: bool) -> Soc:
        def own(path: str) -> bool:
            return not replace_measured and _is_measured(soc, path)

        if not own("gpu.sustained_share"):
            gpu = replace(gpu, sustained_share=min(exp(self._mean(RATE, (gpu.family,))), 1.0))
        rate = sustained(gpu)
        memory, latency = soc.memory, soc.latency
        if not own("memory.gpu_gbps"):
            streamed = exp(self._mean(BANDWIDTH)) * rate
            memory = replace(memory, gpu_gbps=min(streamed, MOST_OF_DRAM * memory.peak_gbps))
        if not own("gpu.kernel_us"):
            gpu = replace(gpu, kernel_us=self._time_us(KERNEL, gpu.family, rate))
        if not own("latency.gpu_dispatch"):
            median = self._time_us(DISPATCH, gpu.family, rate)
            first, last = DISPATCH_ENDS
            dispatch = Latency(median, first * median, last * median)
            latency = replace(latency, gpu_dispatch=dispatch)
        if replace_measured and _is_measured(soc, "latency.gpu_sync"):
            median = exp(self._mean(SYNC))
            latency = replace(latency, gpu_sync=Latency(median, median, median))
        return replace(soc, gpu=gpu, memory=memory, latency=latency)

    def _time_us(self, what: str, family: str, rate: float) -> float:
        """What a GPU that sustains ``rate`` takes: launching does not get faster for ever."""
        least = min(each.value for each in self.figures[what])
        return max(exp(self._mean(what, (family,))) / rate, least)

    def _mean(self, what: str, kinds: Sequence[str] = ()) -> float:
        """The mean of the most specific kind that is known, drawn towards those above it."""
        members = self.figures[what]
        found = _mean_of_kinds(members) if kinds else _mean_of(members)
        for depth in range(1, len(kinds) + 1):
            members = [each for each in members if each.kinds[:depth] == tuple(kinds[:depth])]
            values = [each.log_ratio for each in members]
            found = (sum(values) + found) / (len(values) + 1)
        return found


def sustained(gpu: Gpu) -> float:
    """GFLOP/s in float16 that it is taken to sustain."""
    return gpu.gflops.get("float16", gpu.gflops["float32"]) * gpu.sustained_share


def _measured(soc: Soc) -> Iterator[Known]:
    """Figures of a chip that were measured there."""
    for cluster in soc.clusters:
        path = f"cpu.{cluster.name}.sustained_share"
        if _is_measured(soc, path):
            for name in CPU_TYPES:
                share = cluster.sustained_share.get(name, cluster.sustained_share["float32"])
                kinds = _kinds_of_core(cluster, name)
                yield _known(soc, path, name, kinds, share, _behind(cluster, name))
    if _is_measured(soc, "latency.gpu_sync"):
        yield _known(soc, "latency.gpu_sync", SYNC, (), soc.latency.gpu_sync.median_us, 1.0)
    gpu = soc.gpu
    if gpu is None or not _is_measured(soc, "gpu.sustained_share"):
        return
    rate = sustained(gpu)
    figures = {
        "gpu.sustained_share": (RATE, gpu.sustained_share, 1.0),
        "memory.gpu_gbps": (BANDWIDTH, soc.memory.gpu_gbps, 1 / rate),
        "gpu.kernel_us": (KERNEL, gpu.kernel_us, rate),
        "latency.gpu_dispatch": (DISPATCH, soc.latency.gpu_dispatch.median_us, rate),
    }
    for path, (what, value, times) in figures.items():
        if _is_measured(soc, path):
            yield _known(soc, path, what, (gpu.family,), value, times)


def _known(
    soc: Soc, path: str, what: str, kinds: tuple[str, ...], value: float, times: float
) -> Known:
    chips = frozenset({soc.name, *soc.sources[path].against})
    return Known(what, kinds, value, log(value * times), chips)


def _is_measured(soc: Soc, path: str) -> bool:
    source = soc.sources.get(path)
    return source is not None and source.basis == MEASURED


def _kinds_of_core(cluster: Cluster, name: str) -> tuple[str, ...]:
    """In order or not and by which instructions it multiplies; which core; of which revision."""
    order = "in order" if cluster.core in IN_ORDER else "out of order"
    rates, core = cluster.flop_per_cycle, LIKE.get(cluster.core, cluster.core)
    times = rates.get(name, rates["float32"]) / rates["float32"]
    revision = f"{core} int8 {rates.get('int8', 0):g}"
    return f"{order}, {times:g} times as many as floats", core, revision


def _behind(cluster: Cluster, name: str) -> float:
    """How many times as fast the core's successor is in this element type, at the same peak."""
    return FLOATS_OF_SUCCESSOR.get(cluster.core, 1.0) if name == "float32" else 1.0


def _mean_of(members: Sequence[Known]) -> float:
    return sum(each.log_ratio for each in members) / len(members)


def _mean_of_kinds(members: Sequence[Known]) -> float:
    """Of the means of the most general kinds: many chips of one kind are no more evidence."""
    groups: dict[str, list[Known]] = defaultdict(list)
    for each in members:
        groups[each.kinds[0]].append(each)
    means = [_mean_of(group) for group in groups.values()]
    return sum(means) / len(means)
