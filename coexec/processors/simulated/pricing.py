"""What things cost on one processor of a phone: kernels, copies, launches and waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coexec.core.machine import Link, Rates
from coexec.core.processor import Support
from coexec.core.soc import Latency, Soc
from coexec.core.types import OpCall, RegionNode
from coexec.cost.distribution import Distribution
from coexec.cost.soc.cost import SocCost
from coexec.cost.soc.engine_profile import STOCK_MNN
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.predict import predict, supports
from coexec.cost.soc.workload import Workload, precision_of, workload
from coexec.cost.transfer import HostLink, Line
from coexec.ops.table import opdef
from coexec.processors.simulated.executable import Kernel, follows, waiting_by_layer
from coexec.processors.simulated.options import FLAG, ON, OWN, SimulatedOptions
from coexec.simulation.work import Work

PREDICTED = "predicted"
NOTHING = Distribution.exactly(0.0)
TYPES = ("float32", "float16", "int8")


class Pricing:
    """Costs on ``cpu``, a mix of its cores, ``gpu`` or ``npu`` of a chip, by one engine."""

    def __init__(self, soc: Soc, processor: str, options: SimulatedOptions) -> None:
        self.soc = soc
        self.processor = processor
        self.kind = processor.partition(":")[0]
        self.options = options
        self._copies: dict[tuple[int, bool], Work] = {}
        self._costs: dict[tuple[Workload | None, str], SocCost] = {}

    @property
    def fuses(self) -> bool:
        """Whether elementwise operators are computed in the kernel before them."""
        return self.options.engine != STOCK_MNN and self.options.fusion == ON

    def supports(self, call: OpCall) -> Support:
        return supports(self.soc, self.processor, call, self._precision(call))

    def cost(self, call: OpCall) -> SocCost:
        """A call alone."""
        precision = self._precision(call)
        key = (None if opdef(call).view else workload(call), precision)
        known = self._costs.get(key)
        if known is None:
            known = predict(self.soc, self.processor, call, precision, self.options.engine)
            if self.kind == "gpu" and not self.waits_by_layer:
                known = replace(known, dispatch=self.queued)
            self._costs[key] = known
        return known

    @property
    def waits_by_layer(self) -> bool:
        """Whether the engine waits for its GPU after every layer."""
        waits = self.options.engine == STOCK_MNN and self.kind == "gpu"
        return waits and self.options.queue == OWN

    @property
    def queued(self) -> Distribution:
        """Handing over one more kernel to a GPU's queue."""
        return _distribution(self.soc.latency.gpu_dispatch)

    def kernels(self, groups: Sequence[tuple[RegionNode, ...]]) -> tuple[Kernel, ...]:
        """Groups of nodes as kernels of the engine."""
        kernels = tuple(map(self.kernel, groups))
        return waiting_by_layer(kernels, self.queued) if self.waits_by_layer else kernels

    def kernel(self, nodes: tuple[RegionNode, ...]) -> Kernel:
        """Nodes as one kernel: those behind the first add what they read beside its result."""
        first = self.cost(nodes[0].call)
        for node in nodes[1:]:
            extra = self.behind(node.call)
            first = replace(
                first,
                compute_us=first.compute_us + extra.compute_us,
                memory_us=first.memory_us + extra.memory_us,
                memory_bytes=first.memory_bytes + extra.memory_bytes,
                flop=first.flop + extra.flop,
            )
        return Kernel(nodes, first)

    def behind(self, call: OpCall) -> SocCost:
        """A call in the kernel before it: its other operands still come from memory."""
        cost = self.cost(call)
        sizes = sorted(kind.nbytes for kind in call.inputs if kind is not None)
        others = min(float(sum(sizes[:-1])), cost.memory_bytes)
        us = cost.memory_us * others / cost.memory_bytes if cost.memory_bytes else 0.0
        return replace(cost, compute_us=us, memory_us=us, memory_bytes=others, dispatch=NOTHING)

    def in_company(self, call: OpCall, *, alone: bool = False) -> Distribution:
        """Time of a call among others, handing over included: what a planner adds up.

        ``alone``: it cannot join the kernel before it.
        """
        if alone or not follows(call):
            cost = self.cost(call)
        elif self.fuses:
            cost = self.behind(call)
        else:
            cost = self.cost(call)
            cost = replace(cost, dispatch=self.queued) if self.waits_by_layer else cost
        return Distribution.exactly(cost.compute_us).plus(cost.dispatch)

    @property
    def start(self) -> Distribution:
        """Before the first kernel of a launch."""
        return _distribution(self.soc.latency.npu_switch) if self.kind == "npu" else NOTHING

    @property
    def wait(self) -> Distribution:
        """From the end of work until the host knows."""
        if self.kind != "gpu":
            return NOTHING  # the CPU is the host; the NPU's is in its switch
        latency = self.soc.latency
        return _distribution(latency.gpu_flag if self.options.wait == FLAG else latency.gpu_sync)

    def copy(self, nbytes: int, to_host: bool) -> Work:
        """A copy between the host's arrays and the processor's buffers."""
        known = self._copies.get((nbytes, to_host))
        if known is None:
            known = self._copies[nbytes, to_host] = self._copy(nbytes, to_host)
        return known

    def _copy(self, nbytes: int, to_host: bool) -> Work:
        fixed = self._copy_latency(to_host).median_us
        us = nbytes * self._us_per_byte
        traffic = nbytes * (2.0 if self.kind == "cpu" else 1.0)
        # Mapping may be faster than DRAM: then not all of the buffer was moved.
        return Work([fixed], [0.0], [us], [min(traffic, us * self.soc.memory.shared_gbps * 1e3)])

    def link(self) -> HostLink:
        """The same as lines, for a planner: a read with its wait, a write with its launch."""
        write = self._copy_latency(to_host=False).plus(self.start)
        read = self._copy_latency(to_host=True).plus(self.wait)
        per_byte = self._us_per_byte
        return HostLink(Line(write, per_byte), Line(read, per_byte), PREDICTED)

    def copies(self) -> HostLink:
        """What of the copies the processor is occupied for: not the wait, nor the launch."""
        per_byte = self._us_per_byte
        write, read = (self._copy_latency(to_host=to_host) for to_host in (False, True))
        return HostLink(Line(write, per_byte), Line(read, per_byte), PREDICTED)

    def rates(self) -> Rates:
        """Nominal limits, as measured ones of real processors."""
        known = self.soc.npu.gops if self.kind == "npu" and self.soc.npu is not None else None
        types = [name for name in TYPES if known is None or name in known]
        limits = {name: limits_of(self.soc, self.processor, name) for name in types}
        first = limits[types[0]]
        gflops = {name: each.gflops for name, each in limits.items()}
        gflops.setdefault("float32", first.gflops)
        link, gbps = self.link(), 1e-3 / self._us_per_byte
        return Rates(
            peak_gflops=gflops,
            bandwidth_gbps=first.gbps,
            launch_us=first.dispatch.median_us,
            sync_us=first.dispatch.median_us + self.wait.median_us,
            links={
                "write": Link(link.write.latency.median_us, gbps),
                "read": Link(link.read.latency.median_us, gbps),
            },
            driver=f"figures of {self.soc.title}",
        )

    @property
    def _us_per_byte(self) -> float:
        if self.kind == "cpu":  # read there, written here
            return 2 / (self.soc.memory.cpu_gbps * 1e3)
        return self.soc.latency.map_us_per_byte

    def _copy_latency(self, to_host: bool) -> Distribution:
        latency = self.soc.latency
        if self.kind == "cpu":
            return NOTHING
        mapped = _distribution(latency.map).plus(_distribution(latency.unmap))
        starts = self.kind == "gpu" and not to_host
        return mapped.plus(_distribution(latency.gpu_start)) if starts else mapped

    def _precision(self, call: OpCall) -> str:
        """The wanted element type in place of the model's floating ones."""
        own = precision_of(call)
        return self.options.precision or own


def _distribution(latency: Latency) -> Distribution:
    return Distribution(latency.median_us, latency.p10_us, latency.p90_us)
