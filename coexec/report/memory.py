"""Device memory over time, from the static plan of a program and the times of its launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from coexec.core.events import COPY, FREE, HOST, MAP, Event, Trace
from coexec.core.program import BOUNDARY, SCRATCH, Free, Launch, Program


def memory_over_time(program: Program, trace: Trace) -> list[tuple[int, str, int]]:
    """(ns, track, bytes in use from then on) of one run, in order of time.

    States, inputs, outputs and constants are there all the time; a tensor between regions from the
    first launch that touches it until it is freed; of the arena what the running kernel needs.
    """
    roles = {spec.name: spec for spec in program.buffers}
    resident: dict[str, int] = defaultdict(int)
    for spec in program.buffers:
        if spec.role not in (BOUNDARY, SCRATCH):
            resident[spec.processor] += spec.nbytes
    for executable in program.executables:
        resident[executable.processor] += executable.constant_bytes
    launches = _launches(trace)
    points: list[tuple[int, str, int]] = []
    live: dict[str, set[str]] = defaultdict(set)
    time = min((event.start_ns for event in trace.events), default=0)
    for track, nbytes in resident.items():
        points.append((time, track, nbytes))
    for step in program.instructions:
        if isinstance(step, Launch):
            event = next(launches, None)
            if event is None:
                break
            track, time = event.track, event.end_ns
            live[track].update(n for n in step.buffers if roles[n].role == BOUNDARY)
            base = resident[track] + sum(roles[name].nbytes for name in live[track])
            points += [(leaf.start_ns, track, base + leaf.live) for leaf in event.parts or (event,)]
            points.append((time, track, base))
        elif isinstance(step, Free):
            track = roles[step.buffer].processor
            live[track].discard(step.buffer)
            base = resident[track] + sum(roles[name].nbytes for name in live[track])
            points.append((time, track, base))
    return _changes(sorted(points, key=lambda point: point[0]))


def _launches(trace: Trace) -> Iterator[Event]:
    """Launched regions in the order of the program."""
    kinds = (COPY, MAP, FREE)
    return iter([e for e in trace.events if e.track != HOST and e.kind not in kinds])


def _changes(points: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """Without points at which nothing changes."""
    last: dict[str, int] = {}
    kept = []
    for time, track, nbytes in points:
        if last.get(track) != nbytes:
            kept.append((time, track, nbytes))
        last[track] = nbytes
    return kept
