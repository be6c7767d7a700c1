"""Where the time of a run went: every nanosecond of every track in exactly one of eight categories.

A sweep over the timeline gives each instant of the host's RUN spans to one thing, per track. What a
processor does comes before what the host does meanwhile: a copy hidden behind a kernel costs
nothing, and neither does dispatching while the device is busy. So the parts add up to the wall time
exactly, whatever overlaps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coexec.core.events import COPY, DISPATCH, FREE, HOST, LAYOUT, MAP, RUN, SYNC, Event, Trace
from coexec.core.machine import Rates
from coexec.report.flows import runs_of

COMPUTE, BANDWIDTH, LAYOUT_TIME, TRANSFER = "compute", "bandwidth", "layout", "transfer"
MAPPING, DISPATCHING, SYNCING, IDLE = "map", "dispatch", "sync", "idle"

CATEGORIES: Mapping[str, str] = {
    COMPUTE: "compute-bound kernels",
    BANDWIDTH: "bandwidth-bound kernels",
    LAYOUT_TIME: "layout conversion",
    TRANSFER: "host-device transfer",
    MAPPING: "map and unmap",
    DISPATCHING: "dispatch",
    SYNCING: "synchronisation",
    IDLE: "idle",
}
"""Category -> what it is, in the order of priority where things overlap."""

KERNEL_RANK, GAP_RANK = 0, 10
MOVES = {COPY: TRANSFER, MAP: MAPPING}
RANKS = {LAYOUT: 1, COPY: 2, MAP: 3, DISPATCH: 11, SYNC: 12, RUN: 13}


@dataclass(frozen=True)
class Piece:
    """A kernel, copy or map with its share of the timeline.

    ``ns`` excludes what overlaps with something of higher priority and what lies outside of runs.
    ``roof_ns`` is the time that the measured roofline allows for its work (for the kernels of one
    node together: it stands at the last of them). ``group`` numbers nodes within the trace.
    """

    event: Event
    category: str
    ns: int
    roof_ns: float = 0.0
    group: int = -1


@dataclass(frozen=True)
class TrackTimes:
    """One processor: time by category, and every piece of its busy time.

    ``latency_ns`` is the part of the transfers that the link's bandwidth does not explain.
    ``starting_ns`` is what it cost the host to start copies and maps: categories contain it, pieces
    do not.
    """

    categories: Mapping[str, int]
    pieces: tuple[Piece, ...]
    latency_ns: float
    starting_ns: int = 0

    @property
    def busy_ns(self) -> int:
        """Time in kernels, copies and maps."""
        return sum(piece.ns for piece in self.pieces)


@dataclass(frozen=True)
class Row:
    """Pieces under one name. ``roofline`` is ``None`` where no work is counted."""

    name: str
    ns: int
    launches: int
    flop: int
    bytes: int
    roofline: float | None
    bound: str


@dataclass(frozen=True)
class Point:
    """One node under the roof: its kernels without layout conversions."""

    name: str
    operator: str
    track: str
    phase: str
    source: str
    ns: int
    roof_ns: float
    flop: int
    bytes: int


@dataclass(frozen=True)
class Attribution:
    """``wall_ns`` of the runs, times by track, and the busy time by operator, layer and phase."""

    wall_ns: int
    tracks: Mapping[str, TrackTimes]
    operators: tuple[Row, ...]
    layers: tuple[Row, ...]
    phases: tuple[Row, ...]
    points: tuple[Point, ...]

    @property
    def residual(self) -> float:
        """Largest difference between a track's categories and the wall time, as a share of it."""
        sums = (sum(times.categories.values()) for times in self.tracks.values())
        gaps = [abs(total - self.wall_ns) for total in sums]
        return max(gaps, default=0) / self.wall_ns if self.wall_ns else 0.0


def attribute(trace: Trace, rates: Mapping[str, Rates]) -> Attribution:
    """Split the wall time of the runs in ``trace``; ``rates`` by track.

    Raises:
        ValueError: the trace has no run, or a track no rates.
    """
    host = trace.host()
    if not any(event.kind == RUN for event in host):
        raise ValueError("the trace has no run: nothing to attribute")
    launches: dict[str, list[Event]] = defaultdict(list)
    for event in trace.events:
        if event.track != HOST and event.kind != FREE:
            launches[event.track].append(event)
    missing = sorted(set(launches) - set(rates))
    if missing:
        raise ValueError(f"no measured rates of {', '.join(missing)}")
    moves = _moves(trace)
    tracks = {name: _track(events, host, moves, rates[name]) for name, events in launches.items()}
    pieces = [piece for times in tracks.values() for piece in times.pieces]
    return Attribution(
        wall_ns=_union([(e.start_ns, e.end_ns) for e in host if e.kind == RUN]),
        tracks=tracks,
        operators=_rows(pieces, operator_type),
        layers=_rows(pieces, _layer),
        phases=_rows(pieces, _phase),
        points=_points(pieces),
    )


def roof_ns(flop: int, moved: int, dtype: str, rates: Rates) -> float:
    """Least time for some work: arithmetic or memory traffic, whichever takes longer."""
    return max(flop / rates.gflops(dtype), moved / rates.bandwidth_gbps)


def operator_type(event: Event) -> str:
    """``coexec::ConvWeightGrad`` of ``coexec::ConvWeightGrad.kernel``; a copy's direction."""
    domain, separator, name = event.operator.rpartition("::")
    return domain + separator + name.partition(".")[0] or event.name


def _layer(event: Event) -> str:
    return event.source or event.name


def _phase(event: Event) -> str:
    return event.phase or (event.kind if event.kind in (COPY, MAP) else "forward")


def _moves(trace: Trace) -> dict[int, str]:
    """Identity of each hand-over of a copy or map -> its category.

    What it costs the host to start a copy is a part of that copy's latency: with tensors that stay
    where they are, it would not be spent.
    """
    works = (work for run in runs_of(trace) for work in run)
    return {id(w.dispatch): MOVES[w.event.kind] for w in works if w.event.kind in MOVES}


def _track(
    launches: Sequence[Event], host: Sequence[Event], moves: Mapping[int, str], rates: Rates
) -> TrackTimes:
    pieces = [piece for event in launches for piece in _open(event, rates)]
    pieces = _numbered(pieces)
    gaps = [event for event in launches if event.parts]
    spans = [_Span(p.event.start_ns, p.event.end_ns, _rank(p.event)) for p in pieces]
    spans += [_Span(event.start_ns, event.end_ns, GAP_RANK) for event in gaps]
    spans += [_Span(event.start_ns, event.end_ns, RANKS[event.kind]) for event in host]
    times = _sweep(spans)
    pieces = [_timed(piece, ns) for piece, ns in zip(pieces, times, strict=False)]
    categories = Counter(dict.fromkeys(CATEGORIES, 0))
    for piece in pieces:
        categories[piece.category] += piece.ns
    first = len(pieces)
    categories[DISPATCHING] += sum(times[first : first + len(gaps)])
    names = {COPY: TRANSFER, DISPATCH: DISPATCHING, SYNC: SYNCING, RUN: IDLE}
    latency = sum(_latency_ns(piece, rates) for piece in pieces if piece.category == TRANSFER)
    starting: Counter[str] = Counter()
    for event, ns in zip(host, times[first + len(gaps) :], strict=True):
        category = moves.get(id(event), names[event.kind])
        categories[category] += ns
        starting[category] += ns if id(event) in moves else 0
    return TrackTimes(
        dict(categories), tuple(pieces), latency + starting[TRANSFER], starting.total()
    )


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    rank: int


def _sweep(spans: Sequence[_Span]) -> list[int]:
    """Exclusive time of each span: where several overlap, the lowest rank has it.

    Only instants inside a span of the highest rank (a run) count. Among equals the first to start
    keeps the time.
    """
    times = [0] * len(spans)
    edges = sorted(
        [(span.start, 1, number) for number, span in enumerate(spans) if span.end > span.start]
        + [(span.end, 0, number) for number, span in enumerate(spans) if span.end > span.start]
    )
    active: dict[int, tuple[int, int]] = {}
    running = 0
    previous = 0
    for instant, opening, number in edges:
        if running and instant > previous:
            times[min(active, key=active.__getitem__)] += instant - previous
        previous = instant
        running += (1 if opening else -1) * (spans[number].rank == RANKS[RUN])
        if opening:
            active[number] = (spans[number].rank, spans[number].start)
        else:
            del active[number]
    return times


def _rank(event: Event) -> int:
    return RANKS.get(event.kind, KERNEL_RANK)


def _open(launch: Event, rates: Rates) -> list[Piece]:
    """The leaves of one launch, with categories; kernels of one node share their node's."""
    leaves = launch.parts or (launch,)
    nodes: dict[str, list[Event]] = defaultdict(list)
    for leaf in leaves:
        if _rank(leaf) == KERNEL_RANK:
            nodes[leaf.name].append(leaf)
    kinds = {name: _classify(events, rates) for name, events in nodes.items()}
    last = {name: id(events[-1]) for name, events in nodes.items()}
    pieces = []
    for leaf in leaves:
        if _rank(leaf) != KERNEL_RANK:
            category = {LAYOUT: LAYOUT_TIME, **MOVES}[leaf.kind]
            pieces.append(Piece(leaf, category, 0))
            continue
        category, roof = kinds[leaf.name]
        pieces.append(Piece(leaf, category, 0, roof if id(leaf) == last[leaf.name] else 0.0))
    return pieces


def _classify(kernels: Sequence[Event], rates: Rates) -> tuple[str, float]:
    """Category and least time of a node by the work of all its kernels."""
    flop = sum(event.flop for event in kernels)
    moved = sum(event.bytes for event in kernels)
    dtype = kernels[-1].dtype
    if not moved:
        return BANDWIDTH, roof_ns(flop, 0, dtype, rates)
    above = flop / moved >= rates.gflops(dtype) / rates.bandwidth_gbps
    return COMPUTE if above else BANDWIDTH, roof_ns(flop, moved, dtype, rates)


def _numbered(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces with their node's number: kernels of one name that follow each other are one node."""
    numbered: list[Piece] = []
    group, previous = -1, None
    for piece in pieces:
        name = (piece.event.name, piece.event.kind in (COPY, MAP))
        if name != previous or name[1]:
            group += 1
        previous = name
        numbered.append(Piece(piece.event, piece.category, 0, piece.roof_ns, group))
    return numbered


def _timed(piece: Piece, ns: int) -> Piece:
    return Piece(piece.event, piece.category, ns, piece.roof_ns, piece.group)


def _latency_ns(piece: Piece, rates: Rates) -> float:
    """What of a copy's exclusive time the bandwidth of its link does not explain."""
    link = rates.links.get(piece.event.name) or rates.links.get("write")
    duration = piece.event.duration_ns
    if link is None or duration <= 0:
        return 0.0
    moving = min(piece.event.bytes / link.gbps, duration)
    return piece.ns * (1.0 - moving / duration)


def _rows(pieces: Sequence[Piece], key: Callable[[Event], str]) -> tuple[Row, ...]:
    groups: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        groups[key(piece.event)].append(piece)
    rows = [_row(name, members) for name, members in groups.items()]
    return tuple(sorted(rows, key=lambda row: -row.ns))


def _row(name: str, members: Sequence[Piece]) -> Row:
    ns = sum(piece.ns for piece in members)
    roof = sum(piece.roof_ns for piece in members)
    bound: Counter[str] = Counter()
    for piece in members:
        bound[piece.category] += piece.ns
    return Row(
        name=name,
        ns=ns,
        launches=len(members),
        flop=sum(piece.event.flop for piece in members),
        bytes=sum(piece.event.bytes for piece in members),
        roofline=roof / ns if roof and ns else None,
        bound=bound.most_common(1)[0][0],
    )


def _points(pieces: Sequence[Piece]) -> tuple[Point, ...]:
    """Nodes with counted work, most time first."""
    nodes: dict[tuple[str, int], list[Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.category in (COMPUTE, BANDWIDTH):
            nodes[piece.event.track, piece.group].append(piece)
    points = [_point(members) for members in nodes.values()]
    known = [point for point in points if point.bytes and point.ns]
    return tuple(sorted(known, key=lambda point: -point.ns))


def _point(members: Sequence[Piece]) -> Point:
    event = members[-1].event
    return Point(
        name=event.name,
        operator=operator_type(event),
        track=event.track,
        phase=event.phase or "forward",
        source=_layer(event),
        ns=sum(piece.ns for piece in members),
        roof_ns=sum(piece.roof_ns for piece in members),
        flop=sum(piece.event.flop for piece in members),
        bytes=sum(piece.event.bytes for piece in members),
    )


def _union(spans: Sequence[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    total, reach = 0, None
    for start, end in sorted(spans):
        begin = start if reach is None else max(start, reach)
        if end > begin:
            total += end - begin
            reach = end
    return total
