"""A machine: what its processors can do at most, measured here or published elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Link:
    """A way between host memory and a processor's: time = ``latency_us`` + bytes / ``gbps``."""

    latency_us: float
    gbps: float


@dataclass(frozen=True)
class Silicon:
    """What a processor is: ``kind`` is ``cpu``, ``gpu`` or ``npu``, ``memory_bytes`` 0 if unknown.

    With ``unified_memory`` it works in the memory of the host.
    """

    kind: str
    compute_units: int
    memory_bytes: int
    unified_memory: bool


@dataclass(frozen=True)
class Rates:
    """Limits of one processor. GFLOP/s count a multiply-add as 2; GB/s are 10^9 bytes per second.

    ``peak_gflops`` by element type; ``bandwidth_gbps`` is a streaming add (bytes read + written);
    ``launch_us`` is the host's cost of handing over one kernel, ``sync_us`` that of launching an
    empty kernel and waiting for it; ``links`` by name: ``write``, ``read``, ``map``, ``svm``.
    ``silicon`` is known of processors that were here when they were measured.
    """

    peak_gflops: Mapping[str, float]
    bandwidth_gbps: float
    launch_us: float
    sync_us: float
    links: Mapping[str, Link] = field(default_factory=dict)
    driver: str = ""
    silicon: Silicon | None = None

    def gflops(self, dtype: str) -> float:
        """Peak for elements of a type, in GFLOP/s (= FLOP/ns); of float32 where none was measured.

        For float16 at least that of float32: where a device emulates the arithmetic of float16,
        kernels store 16 bits and compute in 32.
        """
        single = self.peak_gflops["float32"]
        own = self.peak_gflops.get(dtype) or single
        return max(own, single) if dtype == "float16" else own


@dataclass(frozen=True)
class Machine:
    """Processors by spec with their rates; ``date`` (ISO) is that of the measurement."""

    name: str
    date: str
    processors: Mapping[str, Rates]
