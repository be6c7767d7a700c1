"""A system on chip as published figures: what a phone's processors, memory and heat sink can do.

Figures are nominal limits; what a software engine reaches of them is fitted elsewhere
(:mod:`coexec.cost.soc`). Every figure has a source, see :attr:`Soc.sources`. GFLOP/s and GOP/s
count a multiply-add as 2; GB/s are 10^9 bytes per second; element types are NumPy's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from coexec.base.errors import ProcessorError
from coexec.core.npu_operators import NpuOperators
from coexec.core.soc_source import Source

MIX = re.compile(r"(\d+)(prime|big|little)")
"""One part of a mix of cores: ``4big``; several are joined by ``+``."""


@dataclass(frozen=True)
class Latency:
    """A time that varies: median, first and last decile, in microseconds."""

    median_us: float
    p10_us: float
    p90_us: float


@dataclass(frozen=True)
class Cluster:
    """Equal CPU cores on one clock. ``mhz`` are its frequency steps, rising.

    ``core_mw`` is what one busy core draws at each step, ``idle_mw`` the whole cluster at rest.
    ``flop_per_cycle`` is the vector rate of one core by element type, ``sustained_share`` how much
    of it the best network reaches on one core, which differs by architecture; ``gbps`` is what one
    core can stream; ``l2_kib`` the cache of one core (its share, where cores share one).
    """

    name: str
    core: str
    cores: int
    mhz: tuple[float, ...]
    core_mw: tuple[float, ...]
    idle_mw: float
    flop_per_cycle: Mapping[str, float]
    sustained_share: Mapping[str, float]
    gbps: float
    l2_kib: float

    @property
    def top_mhz(self) -> float:
        return self.mhz[-1]

    def gflops(self, dtype: str) -> float:
        """Peak of one core at its top frequency; a type without a rate computes as float32."""
        rate = self.flop_per_cycle.get(dtype, self.flop_per_cycle["float32"])
        return rate * self.top_mhz / 1e3

    def sustained_gflops(self, dtype: str) -> float:
        """What one core reaches at its top frequency."""
        share = self.sustained_share.get(dtype, self.sustained_share["float32"])
        return self.gflops(dtype) * share


@dataclass(frozen=True)
class Gpu:
    """The GPU at its top step ``mhz[-1]``. ``step_mw`` is what it draws, busy, at each step.

    ``gflops`` by element type. ``wave`` is how many work-items run in lockstep, ``waves_per_unit``
    how many waves a compute unit needs to be busy, ``max_group`` the largest work-group,
    ``buffer_slowdown`` how many times longer a convolution takes on buffers than on images (1
    where buffers are no slower). ``sustained_share`` is how much of ``gflops`` the best float16
    convolution reaches for long, which differs by architecture; ``kernel_us`` the shortest kernel.
    """

    name: str
    family: str
    mhz: tuple[float, ...]
    step_mw: tuple[float, ...]
    idle_mw: float
    gflops: Mapping[str, float]
    compute_units: int
    wave: int
    waves_per_unit: float
    max_group: int
    cache_kib: float
    buffer_slowdown: float
    sustained_share: float
    kernel_us: float


@dataclass(frozen=True)
class Npu:
    """The neural processor. ``gops`` by element type; a type that is not there is not supported.

    ``static_shapes``: a graph is built for its shapes, ``build_ms_per_operator`` each.
    ``operators`` are those it runs. ``tcm_kib`` is its local memory.
    """

    name: str
    mhz: tuple[float, ...]
    step_mw: tuple[float, ...]
    idle_mw: float
    gops: Mapping[str, float]
    tcm_kib: float
    static_shapes: bool
    build_ms_per_operator: float
    operators: NpuOperators


@dataclass(frozen=True)
class Memory:
    """DRAM and storage. ``shared_gbps`` is what several processors reach together.

    ``cpu_gbps``, ``gpu_gbps``, ``npu_gbps`` are what each reaches alone. ``system_gib`` is taken
    by the operating system and cannot be used. ``pj_per_byte`` is DRAM energy.
    """

    ram_gib: float
    system_gib: float
    peak_gbps: float
    cpu_gbps: float
    gpu_gbps: float
    npu_gbps: float
    shared_gbps: float
    system_cache_kib: float
    pj_per_byte: float
    storage_read_mbps: float
    storage_write_mbps: float

    @property
    def usable_bytes(self) -> int:
        """What a process can have at most."""
        return int((self.ram_gib - self.system_gib) * 2**30)


@dataclass(frozen=True)
class Latencies:
    """Costs of using a processor that do not depend on its arithmetic.

    ``gpu_dispatch``: per kernel in a queue; ``gpu_sync``: until the host knows that the GPU is
    done; ``gpu_flag``: the same by polling shared memory; ``gpu_start``: until the GPU knows that
    the host is done; ``map`` and ``unmap``: a buffer, without ``map_us_per_byte``;
    ``layout_us_per_byte``: buffer to image or back; ``cpu_dispatch``: per operator on the CPU;
    ``npu_switch``: handing a graph to the NPU and hearing of its end; ``npu_dispatch``: per
    operator inside a graph.
    """

    cpu_dispatch: Latency
    gpu_dispatch: Latency
    gpu_sync: Latency
    gpu_flag: Latency
    gpu_start: Latency
    map: Latency
    unmap: Latency
    npu_switch: Latency
    npu_dispatch: Latency
    map_us_per_byte: float
    layout_us_per_byte: float


@dataclass(frozen=True)
class Thermal:
    """One thermal mass. Temperature rises by power * ``kelvin_per_watt`` in the long run.

    Its time constant is ``kelvin_per_watt`` * ``joule_per_kelvin`` seconds. Above
    ``throttle_celsius`` the governor lowers frequencies.
    """

    kelvin_per_watt: float
    joule_per_kelvin: float
    ambient_celsius: float
    throttle_celsius: float
    battery_wh: float
    base_mw: float


@dataclass(frozen=True)
class Soc:
    """A phone, or a PC (which may have no GPU).

    ``sources`` maps a figure's path (``memory.peak_gbps``) to where it is from.
    """

    name: str
    title: str
    vendor: str
    year: int
    clusters: tuple[Cluster, ...]
    gpu: Gpu | None
    npu: Npu | None
    memory: Memory
    latency: Latencies
    thermal: Thermal
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)

    @property
    def processors(self) -> tuple[str, ...]:
        """Names of processors that occupy silicon of their own."""
        there = {"cpu": True, "gpu": self.gpu is not None, "npu": self.npu is not None}
        return tuple(name for name, yes in there.items() if yes)

    def cluster(self, name: str) -> Cluster:
        """A cluster by name.

        Raises:
            ProcessorError: this chip has no such cluster.
        """
        for each in self.clusters:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.clusters)
        raise ProcessorError(f"{self.name} has no cluster {name!r}; it has {known}")

    def cores(self, processor: str) -> tuple[tuple[Cluster, int], ...]:
        """Clusters and numbers of cores behind ``cpu`` or a mix like ``cpu:1prime+3big``.

        ``cpu`` is every core that is not little (all, where there are no others): what engines
        use, as the little ones hold the others up.

        Raises:
            ProcessorError: no CPU, or more cores than there are.
        """
        kind, _, mix = processor.partition(":")
        if kind != "cpu":
            raise ProcessorError(f"{processor!r} is no CPU; write cpu or cpu:1prime+3big")
        if not mix:
            fast = tuple((each, each.cores) for each in self.clusters if each.name != "little")
            return fast or tuple((each, each.cores) for each in self.clusters)
        return tuple(self._part(processor, part) for part in mix.split("+"))

    def _part(self, processor: str, part: str) -> tuple[Cluster, int]:
        match = MIX.fullmatch(part)
        if match is None:
            raise ProcessorError(f"{processor!r}: write a mix of cores as cpu:1prime+3big")
        found = self.cluster(match[2])
        if not 1 <= int(match[1]) <= found.cores:
            raise ProcessorError(
                f"{processor!r}: {self.name} has {found.cores} {found.name} cores, not {match[1]}"
            )
        return found, int(match[1])
