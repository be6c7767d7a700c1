"""The reference processor: one node after the other with its OpDef's reference."""

from __future__ import annotations

import platform
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from coexec.base.array_parts import copy_bytes
from coexec.base.cores import resources_of
from coexec.base.sources import module_digest
from coexec.core.device_memory import MEMORY, DeviceMemory, limit_of
from coexec.core.events import COPY, LAUNCH, MAP, Event
from coexec.core.processor import (
    Buffer,
    Executable,
    Host,
    Processor,
    ProcessorSpec,
    Support,
    Ticket,
    shared,
)
from coexec.core.types import Array, OpCall, Region, RegionNode, compute_dtype
from coexec.ops.table import OPERATORS, opdef


class ReferenceBuffer(Buffer):
    """Host memory as bytes; tensors are views of it."""

    def __init__(self, nbytes: int, over: Array | None = None) -> None:
        self.nbytes = nbytes
        self.over = over
        self.memory = np.zeros(nbytes, np.uint8) if over is None else over


@dataclass(frozen=True)
class ReferenceExecutable(Executable):
    """The region itself: there is nothing to compile."""

    region: Region = field(default_factory=lambda: Region((), (), (), {}))


@dataclass(frozen=True)
class Done(Ticket):
    """Work that is complete when ``submit`` returns."""

    event: Event


class ReferenceProcessor(Processor):
    """NumPy on the host, synchronous. ``memory`` counts its buffers, not what NumPy takes beside.

    ``limit`` is the most that buffers may take, as ``64MiB``.
    """

    name = "reference"
    host_memory = True

    def __init__(self, limit: str = "") -> None:
        if limit:
            self.name = f"{self.name}?{MEMORY}={limit}"
        self.memory = DeviceMemory(self.name, limit_of(self.name, limit))

    @property
    def allocated_bytes(self) -> int:
        """Memory of the buffers in use."""
        return self.memory.allocated_bytes

    @property
    def peak_bytes(self) -> int:
        """The most memory that buffers ever took."""
        return self.memory.peak_bytes

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(
            self.name,
            "cpu",
            f"NumPy {np.__version__}",
            driver=f"Python {platform.python_version()}",
            compute_units=1,
            features={"fp16": True, "fp64": True, "images": False, "svm": True},
            resources=resources_of(),
        )

    def supports(self, call: OpCall) -> Support:
        known = call.identifier in OPERATORS
        return Support(known, "" if known else "no reference")

    def code_of(self, call: OpCall) -> str:
        return module_digest(opdef(call).reference)

    def compile(self, region: Region) -> Executable:
        return ReferenceExecutable(self.name, region.inputs, region.outputs, 0, 0, region)

    def alloc(self, nbytes: int) -> ReferenceBuffer:
        return self._counted(lambda: ReferenceBuffer(nbytes), nbytes)

    def adopt(self, memory: Host) -> ReferenceBuffer:
        return self._counted(lambda: ReferenceBuffer(memory.nbytes, memory), memory.nbytes)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Done:
        start = time.perf_counter_ns()
        direction = "read" if isinstance(dst, np.ndarray) else "write"
        if shared(dst, src):
            return Done(Event(f"share {direction}", MAP, self.name, start, start))
        target, source = _array(dst), _array(src)
        copy_bytes(target, source)
        end = time.perf_counter_ns()
        return Done(Event(direction, COPY, self.name, start, end, bytes=source.nbytes))

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Done:
        assert isinstance(executable, ReferenceExecutable)
        region = executable.region
        start = time.perf_counter_ns()
        values: dict[str, Array] = dict(region.constants)
        for name, buffer in zip(executable.inputs, buffers, strict=False):
            values[name] = self._tensor(region, name, buffer)
        # Infinities and NaN are results like any other here: whoever reads them decides.
        with np.errstate(all="ignore"):
            parts = tuple(self._run(node, values) for node in region.nodes)
        for name, buffer in zip(executable.outputs, buffers[len(executable.inputs) :], strict=True):
            self._tensor(region, name, buffer)[...] = values[name]
        end = time.perf_counter_ns()
        flop = sum(part.flop for part in parts)
        moved = sum(part.bytes for part in parts)
        name = f"{len(parts)} nodes"
        return Done(Event(name, LAUNCH, self.name, start, end, flop, moved, parts=parts))

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, Done)
        return ticket.event

    def _run(self, node: RegionNode, values: dict[str, Array]) -> Event:
        op = opdef(node.call)
        start = time.perf_counter_ns()
        operands = [values[name] if name else None for name in node.inputs]
        results = op.reference(node.call, operands)
        for name, kind, result in zip(node.outputs, node.call.outputs, results, strict=False):
            if name and kind is not None:
                values[name] = np.asarray(result, kind.dtype).reshape(kind.shape)
        end = time.perf_counter_ns()
        work = op.work(node.call)
        return Event(
            node.call.name or op.identifier,
            LAUNCH,
            self.name,
            start,
            end,
            work.flop,
            work.bytes,
            op.identifier,
            node.provenance.get("phase", ""),
            source=node.provenance.get("source", ""),
            dtype=compute_dtype(node.call),
        )

    def _counted(self, make: Callable[[], ReferenceBuffer], nbytes: int) -> ReferenceBuffer:
        self.memory.take(nbytes)
        buffer = make()
        weakref.finalize(buffer, self.memory.give_back, nbytes)
        return buffer

    @staticmethod
    def _tensor(region: Region, name: str, buffer: Buffer) -> Array:
        assert isinstance(buffer, ReferenceBuffer)
        kind = region.types[name]
        return buffer.memory[: kind.nbytes].view(kind.dtype).reshape(kind.shape)


def _array(side: Buffer | Host) -> Array:
    if isinstance(side, ReferenceBuffer):
        return side.memory
    assert isinstance(side, np.ndarray)
    return side
