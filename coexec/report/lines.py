"""One line per kernel launch and copy: what ``DEBUG=2`` prints."""

from __future__ import annotations

from coexec.base.units import bytes_text, rate_text
from coexec.core.events import FREE, Event, Trace


def event_line(event: Event) -> str:
    """Device, operator and node, milliseconds, GFLOP/s, GB/s."""
    duration = event.duration_ns
    what = event.operator or event.kind
    return (
        f"{event.track:<16} {what:<36} {event.name:<32} {duration / 1e6:9.3f} ms "
        f"{rate_text(event.flop, duration, 'FLOP'):>16} {rate_text(event.bytes, duration, 'B'):>13}"
    )


def trace_lines(trace: Trace) -> list[str]:
    """All launches and copies, then their sums."""
    events = [event for event in trace.leaves() if event.kind != FREE]
    total = sum(event.duration_ns for event in events) / 1e6
    moved = sum(event.bytes for event in events if event.kind == "copy")
    summary = f"{len(events)} events, {total:.3f} ms, {bytes_text(moved)} copied"
    return [*map(event_line, events), summary]
