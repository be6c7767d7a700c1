"""A compiled region: an ONNX Runtime session, and the memory that it is bound to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.events import COPY, LAUNCH, Event
from coexec.core.processor import Executable
from coexec.core.types import Array, Region, RegionNode, TensorType, compute_dtype
from coexec.ops.table import opdef
from coexec.processors.ort.buffer import OrtBuffer

KEPT_BINDINGS = 4
"""Sets of buffers that an executable stays bound to: programs alternate between few."""


@dataclass(frozen=True)
class Binding:
    """A session's inputs and outputs tied to addresses.

    ``copies`` are results that must not be written while their old value may still be read: name,
    where it is computed, and the index among the buffers of where it belongs.
    """

    bound: Any
    copies: tuple[tuple[str, OrtBuffer, int], ...]


@dataclass(frozen=True)
class OrtExecutable(Executable):
    """A session with what its events say; ``weights`` is what it was made from."""

    session: Any = field(default=None, compare=False, repr=False)
    types: Mapping[str, TensorType] = field(default_factory=dict)
    summary: Event = field(default_factory=lambda: Event("", LAUNCH, "", 0, 0))
    weights: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)
    weight_bytes: int = 0
    bindings: dict[tuple[int, ...], Binding] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def constant_bytes(self) -> int:
        return self.weight_bytes

    def binding(self, buffers: Sequence[OrtBuffer]) -> Binding:
        """The session bound to these buffers; made once for each of the last few sets."""
        key = tuple(buffer.address for buffer in buffers)
        if key not in self.bindings:
            while len(self.bindings) >= KEPT_BINDINGS:
                del self.bindings[next(iter(self.bindings))]
            self.bindings[key] = self._bind(buffers)
        return self.bindings[key]

    def _bind(self, buffers: Sequence[OrtBuffer]) -> Binding:
        bound = self.session.io_binding()
        read = {buffer.address for buffer in buffers[: len(self.inputs)] if buffer.nbytes}
        copies = []
        for index, (name, buffer) in enumerate(zip(self.arguments, buffers, strict=True)):
            kind = self.types[name]
            if index < len(self.inputs):
                self._tie(bound.bind_input, name, kind, buffer)
                continue
            target = buffer
            if buffer.address in read:
                # ONNX Runtime orders nodes as it likes: another may read the old value later.
                target = OrtBuffer(kind.nbytes)
                copies.append((name, target, index))
            self._tie(bound.bind_output, name, kind, target)
        return Binding(bound, tuple(copies))

    @staticmethod
    def _tie(bind: Any, name: str, kind: TensorType, buffer: OrtBuffer) -> None:
        element = int(ir.DataType.from_numpy(kind.dtype))
        bind(name, "cpu", 0, element, list(kind.shape), buffer.address)

    def run(self, buffers: Sequence[OrtBuffer], track: str) -> Callable[[], Event]:
        """Run on the calling thread; results that replace a state are copied there at the end.

        Returns what makes the event of the run, for those who ask for it.

        Raises:
            Exception: ONNX Runtime's own.
        """
        binding = self.binding(buffers)
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(binding.bound)
        end = time.perf_counter_ns()
        if not binding.copies:
            return partial(self._event, track, start, end)
        copies = tuple(
            _copied(name, buffers[index], shadow, self.types[name].nbytes, track)
            for name, shadow, index in binding.copies
        )
        return partial(self._event, track, start, end, copies)

    def _event(self, track: str, start: int, end: int, copies: tuple[Event, ...] = ()) -> Event:
        launched = replace(self.summary, track=track, start_ns=start, end_ns=end)
        if not copies:
            return launched
        return replace(launched, end_ns=copies[-1].end_ns, parts=(launched, *copies))


def _copied(name: str, target: OrtBuffer, shadow: OrtBuffer, nbytes: int, track: str) -> Event:
    start = time.perf_counter_ns()
    np.copyto(target.memory[:nbytes], shadow.memory[:nbytes])
    end = time.perf_counter_ns()
    return Event(f"state {name}", COPY, track, start, end, bytes=nbytes)


def summary_of(region: Region, track: str) -> Event:
    """What the events of a region say, without times: its one node, or the sum of all."""
    events = [_node_event(node, track) for node in region.nodes]
    if len(events) == 1:
        return events[0]
    phases = {event.phase for event in events}
    return Event(
        f"{len(events)} nodes",
        LAUNCH,
        track,
        0,
        0,
        sum(event.flop for event in events),
        sum(event.bytes for event in events),
        phase=phases.pop() if len(phases) == 1 else "",
        dtype=next((event.dtype for event in events if "float" in event.dtype), ""),
    )


def _node_event(node: RegionNode, track: str) -> Event:
    call = node.call
    meant = call.like or call
    work = opdef(meant).work(meant)
    return Event(
        call.name or call.identifier,
        LAUNCH,
        track,
        0,
        0,
        work.flop,
        work.bytes,
        call.identifier,
        node.provenance.get("phase", ""),
        source=node.provenance.get("source", ""),
        dtype=compute_dtype(meant),
    )
