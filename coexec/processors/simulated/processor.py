"""A simulated processor: any other's methods, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from coexec.base.array_parts import copy_bytes
from coexec.base.units import bytes_text
from coexec.core.events import Event
from coexec.core.machine import Rates
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    Processor,
    ProcessorSpec,
    Support,
    Ticket,
)
from coexec.core.types import Array, OpCall, Region
from coexec.cost.distribution import Distribution
from coexec.cost.predicted import Predicting
from coexec.cost.transfer import HostLink
from coexec.ops.table import OPERATORS
from coexec.processors.simulated.events import copy_event, launch_event
from coexec.processors.simulated.executable import (
    SimulatedExecutable,
    arena_of,
    constant_bytes_of,
    groups_of,
    work_of,
)
from coexec.processors.simulated.numerics import compute
from coexec.processors.simulated.options import REFERENCE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.pricing import Pricing
from coexec.processors.simulated.ticket import Knowledge, SimulatedBuffer, SimulatedTicket
from coexec.simulation.from_soc import unit_of
from coexec.simulation.sharing import max_min_shares
from coexec.simulation.work import Work


class SimulatedProcessor(Processor, Predicting):
    """A CPU (or a mix of its cores), GPU or NPU of a phone that is not here.

    Times are predicted, and virtual: see :attr:`timeline`. Results come from the references of the
    operators; without ``numerics`` all of them are zero.
    """

    clock = "virtual"

    def __init__(self, phone: Phone, processor: str, options: SimulatedOptions) -> None:
        self.phone = phone
        self.timeline = phone.timeline
        self.options = options
        self.unit = unit_of(phone.soc, processor)
        self.pricing = Pricing(phone.soc, processor, options)
        self.name = f"sim:{phone.soc.name}/{processor}{options}"
        self._computes = options.numerics == REFERENCE
        self._knowledge = Knowledge(lambda: phone.draw(self.pricing.wait))
        phone.engine.add(self.unit)

    def describe(self) -> ProcessorSpec:
        soc, kind = self.phone.soc, self.pricing.kind
        part = {"gpu": soc.gpu.name if soc.gpu else "", "npu": soc.npu.name if soc.npu else ""}
        cores = soc.cores(self.unit.name) if kind == "cpu" else ()
        mix = " + ".join(f"{count} {cluster.core}" for cluster, count in cores)
        limits = self.pricing.rates()
        return ProcessorSpec(
            name=self.name,
            kind=kind,
            device=f"{part.get(kind, mix)} of {soc.title}, simulated",
            driver=f"engine {self.options.engine}, {self.options.condition}",
            compute_units=sum(count for _, count in cores)
            or (soc.gpu.compute_units if soc.gpu and kind == "gpu" else 1),
            memory_bytes=self.phone.memory.free_bytes,
            features={"fp16": "float16" in limits.peak_gflops, "simulated": True},
            resources=tuple(f"{soc.name}/{block}" for block in sorted(self.unit.silicon)),
        )

    def supports(self, call: OpCall) -> Support:
        if call.identifier not in OPERATORS:
            return Support(yes=False, reason="no reference")
        return self.pricing.supports(call)

    def in_floats(self, region: Region, layers: Mapping[str, str]) -> Mapping[str, str]:
        """None: how an engine on a phone that is not here computes them is not known."""
        return {}

    def compile(self, region: Region) -> Executable:
        groups = groups_of(region, self.pricing.fuses)
        kernels = self.pricing.kernels(groups)
        scratch, naive = arena_of(region, groups)
        return SimulatedExecutable(
            processor=self.name,
            inputs=region.inputs,
            outputs=region.outputs,
            scratch_bytes=scratch,
            naive_bytes=naive,
            region=region,
            kernels=kernels,
            work=work_of(kernels, self.pricing.start.median_us),
            weights_bytes=constant_bytes_of(region),
        )

    def alloc(self, nbytes: int) -> SimulatedBuffer:
        memory = self.phone.memory
        memory.take(nbytes)
        return SimulatedBuffer(nbytes, self._computes, memory.give_back)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Ticket:
        to_host = isinstance(dst, np.ndarray)
        nbytes = src.nbytes
        if self._computes:
            copy_bytes(_contents(dst), _contents(src))
        elif isinstance(dst, np.ndarray):
            dst.fill(0)
        work = self.pricing.copy(nbytes, to_host)
        direction = "read" if to_host else "write"
        return self._submitted(lambda: work, after, copy=direction, nbytes=nbytes)

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Ticket:
        assert isinstance(executable, SimulatedExecutable)
        if self._computes:
            _compute(executable, buffers)
        return self._submitted(partial(self._drawn, executable), after, executable)

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, SimulatedTicket)
        self.timeline.wait(ticket)
        if ticket.executable is None:
            return copy_event(self.name, ticket.copy, ticket.nbytes, ticket.job)
        return launch_event(self.name, ticket.executable, ticket.job, self.detailed)

    def finish(self, ticket: Ticket) -> None:
        assert isinstance(ticket, SimulatedTicket)
        self.timeline.wait(ticket)

    def rates(self) -> Rates:
        return self.pricing.rates()

    def predicted(self, call: OpCall, *, alone: bool = False) -> Distribution:
        return self.pricing.in_company(call, alone=alone)

    def predicted_link(self) -> HostLink:
        return self.pricing.link()

    def predicted_copies(self) -> HostLink:
        return self.pricing.copies()

    def predicted_start(self) -> Distribution:
        return self.pricing.start

    def traffic_gbps(self, call: OpCall) -> float:
        cost = self.pricing.cost(call)
        us = cost.compute_us + cost.dispatch.median_us
        return cost.memory_bytes / us * 1e-3 if us else 0.0

    def slowdown_beside(self, own_gbps: float, others_gbps: float) -> float:
        shares = max_min_shares([own_gbps, others_gbps], self.phone.soc.memory.shared_gbps)
        return own_gbps / shares[0] if shares[0] else 1.0

    def __repr__(self) -> str:
        free = bytes_text(self.phone.memory.free_bytes)
        return f"<{self.name}: {self.phone.condition.name}, {free} free>"

    def _drawn(self, executable: SimulatedExecutable) -> Work:
        """The work of a launch: what varies of it from run to run, and paging."""
        work = executable.work
        factor = self.phone.draw_factor(self._launch_sigma(executable))
        memory = self.phone.memory
        paging_us = memory.paging_us(executable.touched_bytes) if memory.swaps else 0.0
        if factor == 1.0 and not paging_us:
            return work
        fixed = work.fixed_us * factor
        fixed[0] += paging_us
        return work.with_fixed(fixed)

    def _launch_sigma(self, executable: SimulatedExecutable) -> float:
        return executable.kernels[0].cost.dispatch.sigma if executable.kernels else 0.0

    def _submitted(
        self,
        draw: Callable[[], Work],
        after: Sequence[Ticket],
        executable: SimulatedExecutable | None = None,
        copy: str = "",
        nbytes: int = 0,
    ) -> SimulatedTicket:
        events = [each.job.done for each in after if isinstance(each, SimulatedTicket)]
        job = self.phone.engine.submit(self.unit.name, draw(), events)
        self.timeline.submitted(job, draw, alone=not events)
        return SimulatedTicket(job, self._knowledge, executable, copy, nbytes)


def _compute(executable: SimulatedExecutable, buffers: Sequence[Buffer]) -> None:
    """Results of a launch, into its output buffers."""
    region = executable.region
    count = len(executable.inputs)
    operands = {
        name: _tensor(region, name, buffer)
        for name, buffer in zip(executable.inputs, buffers, strict=False)
    }
    values = compute(region, operands)
    for name, buffer in zip(executable.outputs, buffers[count:], strict=False):
        _tensor(region, name, buffer)[...] = values[name]


def _tensor(region: Region, name: str, buffer: Buffer) -> Array:
    assert isinstance(buffer, SimulatedBuffer)
    assert buffer.memory is not None
    kind = region.types[name]
    return buffer.memory[: kind.nbytes].view(kind.dtype).reshape(kind.shape)


def _contents(side: Buffer | Host) -> Array:
    if isinstance(side, SimulatedBuffer):
        assert side.memory is not None
        return side.memory
    assert isinstance(side, np.ndarray)
    return side
