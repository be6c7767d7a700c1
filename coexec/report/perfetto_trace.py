"""A trace as a Perfetto file, written with perfetto's own package (open it at ui.perfetto.dev)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    CounterDescriptor,
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from coexec.base.disk import write_atomically
from coexec.core.events import HOST, Event, Trace
from coexec.core.program import Program
from coexec.report.flows import runs_of, steps_of, tensor_flows
from coexec.report.memory import KINDS, Usage, memory_over_time

SEQUENCE = 1
MEMORY = "memory"
"""Of a processor: the counter below its track."""


def write_perfetto(trace: Trace, path: Path, program: Program | None = None) -> None:
    """Write ``trace``: a track for the host and one per processor and queue.

    Arrows lead from each dispatch on the host to the work that it started. With the ``program``
    that ran, they also lead from the producer of a tensor to its consumers in other launches and
    copies, and counters per processor show the memory in use, in all and by kind.

    Raises:
        SaveError: the file cannot be written.
    """
    file = _File()
    for name, events in _by_track(trace):
        file.add_track(name, events)
    for works in runs_of(trace):
        for work in works:
            file.connect(work.dispatch, work.first)
        if program is not None:
            steps = steps_of(works, program)
            for producer, consumer in tensor_flows(steps, program):
                file.connect(producer, consumer)
            if steps:
                one_run = Trace([work.event for work in works])
                file.count_bytes(memory_over_time(program, one_run))
    data = file.builder.serialize()
    write_atomically(path, lambda output: output.write(data))


def _by_track(trace: Trace) -> list[tuple[str, list[Event]]]:
    """The host first, then processors by name."""
    tracks: dict[str, list[Event]] = defaultdict(list)
    for event in (*trace.host(), *trace.leaves()):
        tracks[event.track].append(event)
    return sorted(tracks.items(), key=lambda item: (item[0] != HOST, item[0]))


@dataclass
class _File:
    """A Perfetto file in the making; slices are found again by the identity of their event."""

    builder: TraceProtoBuilder = field(default_factory=TraceProtoBuilder)
    slices: dict[int, TrackEvent] = field(default_factory=dict)
    tracks: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    uuids: Iterator[int] = field(default_factory=lambda: count(1))
    flows: Iterator[int] = field(default_factory=lambda: count(1))

    def add_track(self, name: str, events: list[Event]) -> None:
        """One track, and one below it for each further queue that worked at the same time."""
        self.tracks[name] = self._describe(name)
        for queue, members in enumerate(_queues(events)):
            uuid = self.tracks[name]
            if queue:
                uuid = self._describe(f"{name} queue {queue + 1}", self.tracks[name])
            for event in members:
                self._add_slice(event, uuid)

    def connect(self, producer: Event, consumer: Event) -> None:
        """An arrow, unless the two clocks disagree so much that it would point to the past."""
        if consumer.start_ns < producer.start_ns:
            return
        flow = next(self.flows)
        self.slices[id(producer)].flow_ids.append(flow)
        self.slices[id(consumer)].terminating_flow_ids.append(flow)

    def count_bytes(self, usages: Iterable[Usage]) -> None:
        """Counters of a processor's memory, in all and by kind, where they change."""
        levels: dict[str, int] = {}
        for usage in usages:
            counters = {f"{usage.track} {MEMORY}": usage.nbytes}
            for kind in KINDS:
                counters[f"{usage.track} {MEMORY}: {kind}"] = usage.kinds.get(kind, 0)
            for name, value in counters.items():
                if levels.get(name, 0) != value:
                    self._count(name, self.tracks.get(usage.track, 0), usage.time_ns, value)
            levels.update(counters)

    def _count(self, name: str, parent: int, time: int, value: int) -> None:
        if name not in self.counters:
            self.counters[name] = self._describe(name, parent, counts_bytes=True)
        event = self._packet(time).track_event
        event.type = TrackEvent.TYPE_COUNTER
        event.track_uuid = self.counters[name]
        event.counter_value = value

    def _describe(self, name: str, parent: int | None = None, *, counts_bytes: bool = False) -> int:
        uuid = next(self.uuids)
        descriptor = self.builder.add_packet().track_descriptor
        descriptor.uuid = uuid
        descriptor.name = name
        if parent is None:
            descriptor.child_ordering = TrackDescriptor.EXPLICIT
        else:
            descriptor.parent_uuid = parent
        if counts_bytes:
            descriptor.counter.unit = CounterDescriptor.UNIT_SIZE_BYTES
        return uuid

    def _packet(self, time: int) -> TracePacket:
        packet = self.builder.add_packet()
        packet.timestamp = time
        packet.trusted_packet_sequence_id = SEQUENCE
        return packet

    def _add_slice(self, event: Event, uuid: int) -> None:
        begin = self._packet(event.start_ns).track_event
        begin.type = TrackEvent.TYPE_SLICE_BEGIN
        begin.track_uuid = uuid
        begin.name = event.operator or event.name
        begin.categories.append(event.kind)
        for key, value in _annotations(event).items():
            annotation = begin.debug_annotations.add()
            annotation.name = key
            if isinstance(value, int):
                annotation.int_value = value
            else:
                annotation.string_value = value
        self.slices[id(event)] = begin
        end = self._packet(max(event.end_ns, event.start_ns)).track_event
        end.type = TrackEvent.TYPE_SLICE_END
        end.track_uuid = uuid


def _queues(events: list[Event]) -> list[list[Event]]:
    """Events that nest or follow each other share a queue; a partial overlap needs another one."""
    queues: list[list[Event]] = []
    open_until: list[list[int]] = []
    for event in sorted(events, key=lambda one: (one.start_ns, -one.end_ns)):
        for members, ends in zip(queues, open_until, strict=True):
            while ends and ends[-1] <= event.start_ns:
                ends.pop()
            if not ends or event.end_ns <= ends[-1]:
                members.append(event)
                ends.append(event.end_ns)
                break
        else:
            queues.append([event])
            open_until.append([event.end_ns])
    return queues


def _annotations(event: Event) -> dict[str, str | int]:
    return {
        "node": event.name,
        "kind": event.kind,
        "phase": event.phase,
        "layer": event.source,
        "FLOP": event.flop,
        "bytes": event.bytes,
        "kernel": event.choice,
    }
