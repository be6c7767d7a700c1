"""Perfetto's files as tests read them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent


def slices(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Slices of a Perfetto file by track with its queues, read by Perfetto's own parser."""
    trace = PerfettoTrace()
    trace.ParseFromString(path.read_bytes())
    names = {}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            name = packet.track_descriptor.name
            # Copies of the host and kernels have clocks of their own, and may seem to overlap.
            names[packet.track_descriptor.uuid] = name.partition(" queue ")[0]
            continue
        event = packet.track_event
        if event.type == TrackEvent.TYPE_COUNTER:
            continue
        track = found[names[event.track_uuid]]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            notes = {
                a.name: a.int_value if a.HasField("int_value") else a.string_value
                for a in event.debug_annotations
            }
            track.append({"name": event.name, "start": packet.timestamp, **notes})
        else:
            assert event.type == TrackEvent.TYPE_SLICE_END
            track[-1]["end"] = packet.timestamp
    return found
