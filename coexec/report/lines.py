"""One line per kernel launch and copy: what ``DEBUG=2`` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from coexec.base.knobs import DEBUG
from coexec.base.units import bytes_text, rate_text
from coexec.core.events import Event, Trace


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
    events = trace.leaves()
    total = sum(event.duration_ns for event in events) / 1e6
    moved = sum(event.bytes for event in events if event.kind == "copy")
    summary = f"{len(events)} events, {total:.3f} ms, {bytes_text(moved)} copied"
    return [*map(event_line, events), summary]


@contextmanager
def watched(trace: Trace | None) -> Iterator[Trace | None]:
    """The caller's trace; with ``DEBUG`` at 2 or more, its lines go to stderr afterwards."""
    if DEBUG.number < 2:
        yield trace
        return
    watching = trace if trace is not None else Trace()
    seen = len(watching.events)
    yield watching
    lines = trace_lines(Trace(watching.events[seen:]))
    sys.stderr.write("\n".join((*lines, "")))
