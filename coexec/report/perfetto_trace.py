"""A trace as a Perfetto file, written with perfetto's own package (open it at ui.perfetto.dev)."""

from __future__ import annotations

from pathlib import Path

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from coexec.base.disk import write_atomically
from coexec.core.events import Event, Trace

SEQUENCE = 1


def write_perfetto(trace: Trace, path: Path) -> None:
    """Write ``trace`` with one track per processor.

    Raises:
        SaveError: the file cannot be written.
    """
    builder = TraceProtoBuilder()
    tracks = {name: number for number, name in enumerate(_track_names(trace), start=1)}
    for name, uuid in tracks.items():
        packet = builder.add_packet()
        packet.track_descriptor.uuid = uuid
        packet.track_descriptor.name = name
        packet.track_descriptor.child_ordering = TrackDescriptor.EXPLICIT
    for event in (*trace.leaves(), *trace.host()):
        _add_slice(builder, event, tracks[event.track])
    data = builder.serialize()
    write_atomically(path, lambda file: file.write(data))


def _track_names(trace: Trace) -> list[str]:
    return sorted({event.track for event in (*trace.leaves(), *trace.host())})


def _add_slice(builder: TraceProtoBuilder, event: Event, uuid: int) -> None:
    begin = builder.add_packet()
    begin.timestamp = event.start_ns
    begin.trusted_packet_sequence_id = SEQUENCE
    begin.track_event.type = TrackEvent.TYPE_SLICE_BEGIN
    begin.track_event.track_uuid = uuid
    begin.track_event.name = event.operator or event.name
    for key, value in _annotations(event).items():
        annotation = begin.track_event.debug_annotations.add()
        annotation.name = key
        if isinstance(value, int):
            annotation.int_value = value
        else:
            annotation.string_value = value
    end = builder.add_packet()
    end.timestamp = max(event.end_ns, event.start_ns)
    end.trusted_packet_sequence_id = SEQUENCE
    end.track_event.type = TrackEvent.TYPE_SLICE_END
    end.track_event.track_uuid = uuid


def _annotations(event: Event) -> dict[str, str | int]:
    return {
        "node": event.name,
        "kind": event.kind,
        "phase": event.phase,
        "FLOP": event.flop,
        "bytes": event.bytes,
    }
