"""Advice: rules that fire on evidence, quote it, and say what to do about it.

A rule is a pure function of :class:`Findings`; :data:`RULES` lists them all. It returns ``None``
where its evidence is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from statistics import median

from coexec.base.units import bytes_text
from coexec.core.machine import Rates
from coexec.core.plan import Refusal
from coexec.core.processor import ProcessorSpec
from coexec.ops import activation, arithmetic, cast, logic, pointwise
from coexec.report.attribution import (
    BANDWIDTH,
    COMPUTE,
    DISPATCHING,
    IDLE,
    LAYOUT_TIME,
    SYNCING,
    TRANSFER,
    Attribution,
    Piece,
    Point,
    TrackTimes,
    operator_type,
    roof_ns,
)
from coexec.report.wording import counted, milliseconds, node_phrase, percent

NOTABLE = 0.05
"""Share of the wall time below which nothing is worth advice."""
LATENCY_SHARE = 0.10
DISPATCH_SHARE = 0.15
SYNC_SHARE = 0.15
IDLE_SHARE = 0.20
LAYOUT_SHARE = 0.10
POOR_ROOFLINE = 0.3
CPU_EFFICIENCY = 0.5
"""Part of its roofline that the CPU is granted when it is compared: good kernels reach it."""
ITEMS_PER_UNIT = {"cpu": 1, "gpu": 256}
"""Work-items that keep one compute unit busy: a thread, or the lanes that hide a GPU's latency."""
CHAIN = 3
"""Kernels in a row that make a chain."""
FUSIBLE = frozenset(
    op.identifier
    for family in (activation, arithmetic, cast, logic, pointwise)
    for op in family.OPS
)
"""Operators that work element by element."""


@dataclass(frozen=True)
class Advice:
    """One thing to change. ``saving_ns`` estimates what it saves per step, 0 if unknown.

    Rules write phrases; evidence and suggestion become sentences here.
    """

    title: str
    evidence: str
    suggestion: str
    saving_ns: float = 0.0

    def __post_init__(self) -> None:
        # A phrase that begins with a node's or a processor's name keeps it as it is written.
        object.__setattr__(self, "evidence", f"{self.evidence}.")
        suggestion = f"{self.suggestion[:1].upper()}{self.suggestion[1:]}."
        object.__setattr__(self, "suggestion", suggestion)


@dataclass(frozen=True)
class Findings:
    """What rules look at. ``specs`` and ``rates`` by track; ``first`` is the processor to judge.

    ``cpu`` are the rates of the host's CPU, if known; ``batch_size`` is 0 if there is none.
    """

    attribution: Attribution
    specs: Mapping[str, ProcessorSpec]
    rates: Mapping[str, Rates]
    first: str
    refusals: Sequence[Refusal] = ()
    cpu: Rates | None = None
    batch_size: int = 0
    wanted: float = field(default=NOTABLE)

    @property
    def main(self) -> TrackTimes | None:
        """Times of the processor to judge; ``None`` if nothing ran there."""
        return self.attribution.tracks.get(self.first)

    def share(self, ns: float) -> float:
        """Of the wall time."""
        return ns / self.attribution.wall_ns if self.attribution.wall_ns else 0.0


Rule = Callable[[Findings], Advice | None]


def advise(findings: Findings) -> list[Advice]:
    """Everything that fires, largest saving first."""
    found = [advice for rule in RULES if (advice := rule(findings)) is not None]
    return sorted(found, key=lambda advice: -advice.saving_ns)


def transfer_latency(findings: Findings) -> Advice | None:
    """Copies are many and small: their latency, not their bytes, takes the time."""
    track, times = max(
        findings.attribution.tracks.items(), key=lambda item: item[1].latency_ns, default=("", None)
    )
    if times is None or findings.share(times.latency_ns) < LATENCY_SHARE:
        return None
    copies = [piece for piece in times.pieces if piece.category == TRANSFER]
    moved = sum(piece.event.bytes for piece in copies)
    return Advice(
        "Transfers are bound by latency",
        f"{counted(len(copies), 'copy')} on {track}: {milliseconds(times.categories[TRANSFER])}; "
        f"{milliseconds(times.latency_ns)} of it is latency, "
        f"{percent(findings.share(times.latency_ns))} of the step, "
        f"for {bytes_text(moved / max(len(copies), 1))} per copy",
        "keep tensors resident on the device (residency=device), or move several in one copy",
        times.latency_ns,
    )


def transfer_bandwidth(findings: Findings) -> Advice | None:
    """Many bytes cross the link."""
    times = findings.main
    if times is None:
        return None
    moving = times.categories[TRANSFER] - times.latency_ns
    if findings.share(moving) < LATENCY_SHARE:
        return None
    moved = sum(piece.event.bytes for piece in times.pieces if piece.category == TRANSFER)
    return Advice(
        "Transfers are bound by bandwidth",
        f"{moved / 1e6:.1f} MB cross the link of {findings.first} in {milliseconds(moving)}, "
        f"{percent(findings.share(moving))} of the step",
        "keep tensors resident, feed smaller element types, or use mapped memory where the "
        "processor shares the host's",
        moving,
    )


def low_occupancy(findings: Findings) -> Advice | None:
    """Kernels too small to fill the device."""
    times, spec = findings.main, findings.specs.get(findings.first)
    if times is None or spec is None:
        return None
    enough = ITEMS_PER_UNIT.get(spec.kind, ITEMS_PER_UNIT["gpu"]) * max(spec.compute_units, 1)
    small = [piece for piece in times.pieces if 0 < piece.event.items < enough]
    lost = sum(piece.ns * (1 - piece.event.items / enough) for piece in small)
    if findings.share(lost) < findings.wanted:
        return None
    worst = max(small, key=lambda piece: piece.ns)
    return Advice(
        "Kernels do not fill the device",
        f"launches with fewer than {enough} work-items ({len(small)}) take "
        f"{milliseconds(sum(piece.ns for piece in small))}; the longest, "
        f"{node_phrase(worst.event)}, has {worst.event.items} for {spec.compute_units} compute "
        "units",
        "raise the batch size, or place these operators on the CPU",
        lost,
    )


def fallback_cost(findings: Findings) -> Advice | None:
    """Nodes that went elsewhere cost their time there and the copies to and fro."""
    others = {n: t for n, t in findings.attribution.tracks.items() if n != findings.first}
    away = sum(times.busy_ns for times in others.values())
    main = findings.main
    copies = main.categories[TRANSFER] if main is not None and others else 0
    refusals = [each for each in findings.refusals if each.processor == findings.first]
    if not refusals or findings.share(away + copies) < findings.wanted:
        return None
    refusal = refusals[0]
    operators = ", ".join(sorted({each.operator for each in refusals}))
    return Advice(
        "Operators fell back",
        f"{counted(len(refusals), 'node')} ({operators}) on {', '.join(others)} instead of "
        f"{findings.first}: {milliseconds(away)} there and {milliseconds(copies)} of copies, "
        f"{percent(findings.share(away + copies))} of the step; {refusal.node}: {refusal.reason}",
        "replace these operators in the model, or change the element type that was refused",
        away + copies,
    )


def fusible_chain(findings: Findings) -> Advice | None:
    """Elementwise kernels in a row write what the next one reads."""
    best = max(_chains(findings), key=_chain_saving, default=[])
    total = sum(map(_chain_saving, _chains(findings)))
    if not best or findings.share(total) < findings.wanted:
        return None
    names = " -> ".join(operator_type(piece.event) for piece in best)
    return Advice(
        "A memory-bound chain is worth fusing",
        f"{names} (from {node_phrase(best[0].event)}) moves "
        f"{sum(piece.event.bytes for piece in best) / 1e6:.1f} MB in "
        f"{milliseconds(sum(piece.ns for piece in best))}; such chains could save "
        f"{milliseconds(total)}, {percent(findings.share(total))} of the step",
        "one kernel for the chain would read its first operand and write its last result only",
        total,
    )


def small_batch(findings: Findings) -> Advice | None:
    """Launching takes as long as the kernels do."""
    times, rates = findings.main, findings.rates.get(findings.first)
    if times is None or rates is None or not findings.batch_size:
        return None
    kernels = [p.ns / 1e3 for p in times.pieces if p.category in (COMPUTE, BANDWIDTH, LAYOUT_TIME)]
    dispatch = times.categories[DISPATCHING]
    if not kernels or findings.share(dispatch) < DISPATCH_SHARE:
        return None
    return Advice(
        f"The batch is too small for {findings.first}",
        f"{counted(len(kernels), 'kernel')} of {median(kernels):.1f} us (median) at batch "
        f"{findings.batch_size}; the device is idle for {milliseconds(dispatch)} while they are "
        f"handed over, {percent(findings.share(dispatch))} of the step "
        f"({dispatch / 1e3 / len(kernels):.1f} us per kernel, of which the host's call takes "
        f"{rates.launch_us:.1f} us)",
        f"try a batch of {4 * findings.batch_size}: launches cost the same, kernels do more",
        dispatch * 0.75,
    )


def cpu_is_faster(findings: Findings) -> Advice | None:
    """Operators that the host's CPU would finish sooner at a fair part of its roofline."""
    times, spec = findings.main, findings.specs.get(findings.first)
    if times is None or spec is None or spec.kind == "cpu" or findings.cpu is None:
        return None
    savings: dict[str, tuple[float, float]] = {}
    for point in findings.attribution.points:
        if point.track == findings.first:
            ns, cpu_ns = savings.get(point.operator, (0.0, 0.0))
            roof = roof_ns(point.flop, point.bytes, "float32", findings.cpu) / CPU_EFFICIENCY
            savings[point.operator] = (ns + point.ns, cpu_ns + roof)
    better = {name: pair for name, pair in savings.items() if pair[0] > pair[1]}
    saved = sum(ns - cpu_ns for ns, cpu_ns in better.values())
    if findings.share(saved) < findings.wanted:
        return None
    ranked = sorted(better.items(), key=lambda item: item[1][1] - item[1][0])[:3]
    listed = ", ".join(
        f"{name} {milliseconds(ns)} (CPU {milliseconds(cpu_ns)})" for name, (ns, cpu_ns) in ranked
    )
    return Advice(
        "The CPU would be faster for these operators",
        f"{listed}; together {milliseconds(saved)} less, {percent(findings.share(saved))} of the "
        f"step, if the CPU reaches {percent(CPU_EFFICIENCY)} of its measured roofline (copies not "
        "counted)",
        "put the CPU's processor first, or place these operators there",
        saved,
    )


def poor_kernel(findings: Findings) -> Advice | None:
    """The node that loses most against its roofline."""
    points = [p for p in findings.attribution.points if p.track == findings.first]
    worst = worst_point(points)
    if worst is None or worst.roof_ns / worst.ns > POOR_ROOFLINE:
        return None
    alike = [p for p in points if p.operator == worst.operator and p.roof_ns < p.ns * POOR_ROOFLINE]
    lost = sum(p.ns - p.roof_ns / POOR_ROOFLINE for p in alike)
    if findings.share(lost) < findings.wanted:
        return None
    return Advice(
        f"Kernels of {worst.operator.rpartition('::')[2]} stay far below the roofline",
        f"{counted(len(alike), 'node')}: {milliseconds(sum(p.ns for p in alike))}; "
        f"{node_phrase(worst)} "
        f"reaches {percent(worst.roof_ns / worst.ns)} of the roofline "
        f"({worst.flop / worst.ns:.1f} GFLOP/s, {worst.bytes / worst.ns:.1f} GB/s)",
        f"another kernel variant, tuned for this shape, could save {milliseconds(lost)} at "
        f"{percent(POOR_ROOFLINE)} of the roofline",
        lost,
    )


def layout_cost(findings: Findings) -> Advice | None:
    """Packing and unpacking of tensors between kernels."""
    times = findings.main
    if times is None or findings.share(times.categories[LAYOUT_TIME]) < LAYOUT_SHARE:
        return None
    ns = times.categories[LAYOUT_TIME]
    return Advice(
        "Layout conversions are costly",
        f"{milliseconds(ns)}, {percent(findings.share(ns))} of the step, only rearranges data",
        "keep tensors in the blocked layout across operators, or pack constant weights once",
        ns,
    )


def waiting(findings: Findings) -> Advice | None:
    """The device is done and the host does not know yet."""
    times, rates = findings.main, findings.rates.get(findings.first)
    if times is None or rates is None:
        return None
    ns = times.categories[SYNCING]
    if findings.share(ns) < SYNC_SHARE:
        return None
    return Advice(
        "The host waits often",
        f"{findings.first} is idle for {milliseconds(ns)} while the host waits for it, "
        f"{percent(findings.share(ns))} of the step; one launch with its wait takes "
        f"{rates.sync_us:.1f} us here",
        "wait once a step (synchronise=step), and read results later than they are computed",
        ns,
    )


def host_bound(findings: Findings) -> Advice | None:
    """The host does other things than handing over work."""
    times = findings.main
    if times is None or findings.share(times.categories[IDLE]) < IDLE_SHARE:
        return None
    if len(findings.attribution.tracks) > 1:
        return None  # another processor may well be at work meanwhile
    ns = times.categories[IDLE]
    return Advice(
        "The host is the bottleneck",
        f"{findings.first} is idle for {milliseconds(ns)}, {percent(findings.share(ns))} of the "
        "step, while the host neither launches nor waits",
        "feed contiguous arrays of the model's own element types, and larger batches",
        ns,
    )


def worst_point(points: Sequence[Point]) -> Point | None:
    """The node that loses most time against its roofline."""
    return max(points, key=lambda point: point.ns - point.roof_ns, default=None)


def _chains(findings: Findings) -> list[list[Piece]]:
    """Runs of elementwise memory-bound kernels on tensors of about one size."""
    times = findings.main
    chains: list[list[Piece]] = []
    pieces = times.pieces if times is not None else ()
    for fusible, run in groupby(pieces, _fusible):
        if fusible:
            chains += _alike(list(run))
    return [chain for chain in chains if len(chain) >= CHAIN]


def _fusible(piece: Piece) -> bool:
    return piece.category == BANDWIDTH and operator_type(piece.event) in FUSIBLE


def _alike(run: Sequence[Piece]) -> list[list[Piece]]:
    """Cut where the bytes of neighbours differ by more than a factor of two."""
    chains = [[run[0]]]
    for left, right in pairwise(run):
        low, high = sorted((left.event.bytes, right.event.bytes))
        if low and high <= 2 * low and left.event.phase == right.event.phase:
            chains[-1].append(right)
        else:
            chains.append([right])
    return chains


def _chain_saving(chain: Sequence[Piece]) -> float:
    """All but one read and one write of about half of a kernel's traffic each."""
    return sum(piece.ns for piece in chain) * (1 - 1 / len(chain)) if chain else 0.0


RULES: tuple[Rule, ...] = (
    transfer_latency,
    transfer_bandwidth,
    low_occupancy,
    fallback_cost,
    fusible_chain,
    small_batch,
    cpu_is_faster,
    poor_kernel,
    layout_cost,
    waiting,
    host_bound,
)
