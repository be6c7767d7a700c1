"""Device memory over time, from the static plan of a program and the times of its launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coexec.core.events import COPY, FREE, HOST, MAP, Event, Trace
from coexec.core.program import (
    BOUNDARY,
    PAGES,
    SCRATCH,
    STATE,
    BufferSpec,
    Free,
    Launch,
    Program,
)

PARAMETERS, OPTIMIZER, GRADIENTS = "parameters", "optimizer", "gradients"
ACTIVATIONS, WORKSPACE, DATA = "activations", "workspace", "data"
KINDS = (PARAMETERS, OPTIMIZER, GRADIENTS, ACTIVATIONS, WORKSPACE, DATA)
"""Of memory: constants count as parameters, inputs and outputs of the program are data."""

SLOT = "#"
"""Between the name of a parameter and that of what the optimizer keeps for it."""


@dataclass(frozen=True)
class Usage:
    """Bytes in use on a processor's track from ``time_ns`` on, by kind (a key of :data:`KINDS`)."""

    time_ns: int
    track: str
    kinds: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """All kinds together."""
        return sum(self.kinds.values())


def memory_over_time(program: Program, trace: Trace) -> list[Usage]:
    """Memory in use in one run, in order of time.

    States, inputs, outputs and constants are there all the time; a tensor between regions from the
    first launch that touches it until it is freed; of the arena what the running kernel needs.
    """
    roles = {spec.name: spec for spec in program.buffers}
    resident = _resident(program)
    launches = _launches(trace)
    gradients = _gradients(program)
    points: list[Usage] = []
    live: dict[str, set[str]] = defaultdict(set)
    time = min((event.start_ns for event in trace.events), default=0)

    def use(time_ns: int, track: str, leaf: Event | None = None) -> None:
        kinds = dict(resident[track])
        for name in live[track]:
            _add(kinds, GRADIENTS if name in gradients else ACTIVATIONS, roles[name].nbytes)
        if leaf is not None:
            _add(kinds, GRADIENTS, leaf.gradients)
            _add(kinds, WORKSPACE, leaf.workspace)
            _add(kinds, ACTIVATIONS, leaf.live - leaf.gradients - leaf.workspace)
        points.append(Usage(time_ns, track, kinds))

    for track in [*resident]:
        use(time, track)
    for step in program.instructions:
        if isinstance(step, Launch):
            event = next(launches, None)
            if event is None:
                break
            track, time = event.track, event.end_ns
            live[track].update(n for n in step.buffers if roles[n].role == BOUNDARY)
            for leaf in event.parts or (event,):
                use(leaf.start_ns, track, leaf)
            use(time, track)
        elif isinstance(step, Free):
            track = roles[step.buffer].processor
            live[track].discard(step.buffer)
            use(time, track)
    return _changes(sorted(points, key=lambda point: point.time_ns))


def _resident(program: Program) -> dict[str, dict[str, int]]:
    """By track and kind, what is there all the time."""
    states = set(program.state)
    resident: dict[str, dict[str, int]] = defaultdict(dict)
    for spec in program.buffers:
        if spec.role not in (BOUNDARY, SCRATCH, PAGES):
            _add(resident[spec.processor], _kind(spec, states), spec.nbytes)
    for executable in program.executables:
        _add(resident[executable.processor], PARAMETERS, executable.constant_bytes)
    return resident


def _kind(spec: BufferSpec, states: set[str]) -> str:
    """Of a buffer that is there all the time; ``w#momentum`` belongs to state ``w``."""
    if spec.role != STATE:
        return DATA
    parameter, mark, slot = spec.name.rpartition(SLOT)
    if not mark or parameter not in states:
        return PARAMETERS
    return GRADIENTS if slot == "gradient" else OPTIMIZER


def _gradients(program: Program) -> set[str]:
    """Buffers between regions that a region reads which replaces states: the optimizer's."""
    found: set[str] = set()
    states = set(program.state)
    for step in program.instructions:
        if isinstance(step, Launch):
            count = len(program.executables[step.executable].inputs)
            if not states.isdisjoint(step.buffers[count:]):
                found.update(step.buffers[:count])
    return found


def _add(kinds: dict[str, int], kind: str, nbytes: int) -> None:
    if nbytes:
        kinds[kind] = kinds.get(kind, 0) + nbytes


def _launches(trace: Trace) -> Iterator[Event]:
    """Launched regions in the order of the program."""
    kinds = (COPY, MAP, FREE)
    return iter([e for e in trace.events if e.track != HOST and e.kind not in kinds])


def _changes(points: list[Usage]) -> list[Usage]:
    """Without points at which nothing changes."""
    last: dict[str, Mapping[str, int]] = {}
    kept = []
    for point in points:
        if last.get(point.track) != point.kinds:
            kept.append(point)
        last[point.track] = point.kinds
    return kept
