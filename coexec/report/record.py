"""The profile record: everything ``coexec profile`` knows, as plain JSON values.

Terminal, HTML report, comparison of two runs and ``--json`` are views of this one record. Times are
milliseconds (``*_ms``), counts of work are plain integers, rates are 10^9 per second, shares are
fractions of 1. Times of ``events`` and ``memory`` count from the start of the profiled step.
"""

from __future__ import annotations

from typing import Any, TypedDict

FORMAT = 2
"""Version of the record; a reader refuses another one."""


class LinkRecord(TypedDict):
    """A way between host and processor memory: time = ``latency_us`` + bytes / ``gbps``."""

    latency_us: float
    gbps: float


class RatesRecord(TypedDict):
    """Measured limits of a processor (see :class:`coexec.core.machine.Rates`)."""

    peak_gflops: dict[str, float]
    """GFLOP/s by element type: ``float32``, ``float16``, ``float64``."""
    bandwidth_gbps: float
    launch_us: float
    sync_us: float
    links: dict[str, LinkRecord]
    """By name: ``write``, ``read``, ``map``, ``svm``."""
    driver: str


class ProcessorRecord(TypedDict):
    """A processor that the program uses; ``name`` is its track."""

    name: str
    kind: str
    """``cpu``, ``gpu``, ..."""
    device: str
    driver: str
    compute_units: int
    clock: str
    """``device``: times are the device's own; ``host``: it has no profiling events; ``virtual``: it
    is simulated."""
    rates: RatesRecord


class CategoriesRecord(TypedDict):
    """Wall time of one track in eight exclusive parts; they add up to ``wall_ms``.

    Keys are those of :data:`coexec.report.attribution.CATEGORIES`, in that order.
    """

    compute: float
    """Kernels whose intensity is above the measured ridge."""
    bandwidth: float
    """Kernels below it, or of unknown work."""
    layout: float
    """Kernels that only rearrange data for others."""
    transfer: float
    """Copies between host and device (``transfers`` tells latency from bandwidth)."""
    map: float
    """Mapping and unmapping."""
    dispatch: float
    """Device idle while the host hands work over, or between two kernels of one launch."""
    sync: float
    """Device idle while the host waits for it."""
    idle: float
    """The rest: the host does something else."""


class TransferRecord(TypedDict):
    """Copies of one track; ``latency_ms + bandwidth_ms`` is its ``transfer`` category.

    ``starting_ms`` is what it cost the host to start copies and maps, in the categories of both.
    """

    latency_ms: float
    starting_ms: float
    bandwidth_ms: float
    bytes: int
    count: int


class RowRecord(TypedDict):
    """Kernels, layout conversions and copies of one operator type, layer or phase."""

    name: str
    """Operator type (``Conv``), layer (forward node) or phase (``forward``, ``""`` if none)."""
    ms: float
    """Exclusive time: rows of one table add up to the busy time of all tracks."""
    share: float
    """``ms`` as a share of the busy time of all tracks."""
    launches: int
    flop: int
    bytes: int
    gflops: float
    gbps: float
    roofline: float | None
    """Time that the measured roofline allows / ``ms``; ``None`` where no work is counted."""
    bound: str
    """``compute`` or ``bandwidth``: what takes most of ``ms``; ``layout``, ``transfer``, ``map``
    likewise."""


class EventRecord(TypedDict):
    """A kernel, copy or map of a processor's track, or what the host did (track ``host``)."""

    name: str
    """Node."""
    operator: str
    """``Conv.kernel_name``; empty on the host's track and for copies."""
    kind: str
    """``launch``, ``layout``, ``copy``, ``map`` on processors; ``dispatch``, ``sync``, ``run`` on
    the host."""
    track: str
    start_ms: float
    ms: float
    flop: int
    bytes: int
    phase: str
    source: str
    """The layer: the node of the user's model that this work belongs to."""
    category: str
    """A key of :class:`CategoriesRecord`; empty on the host's track."""


class MemoryRecord(TypedDict):
    """Device memory in use on ``track`` from ``t_ms`` on, until its next entry."""

    t_ms: float
    track: str
    bytes: int
    kinds: dict[str, int]
    """The same by kind: :data:`coexec.report.memory.KINDS`."""


class PointRecord(TypedDict):
    """One node in the roofline plot: work of all its kernels (without layout conversions)."""

    name: str
    operator: str
    """Operator type."""
    track: str
    phase: str
    source: str
    ms: float
    intensity: float
    """FLOP per byte."""
    gflops: float
    fraction: float
    """Of the roofline at this intensity."""


class RooflineRecord(TypedDict):
    """The measured roof of one track and the nodes under it."""

    peak_gflops: float
    """Of the element type that does most of the work."""
    dtype: str
    bandwidth_gbps: float
    ridge: float
    """FLOP per byte where both limits meet."""
    points: list[PointRecord]


class AdviceRecord(TypedDict):
    """One thing to change: why (numbers of this run) and what to do."""

    title: str
    evidence: str
    suggestion: str
    saving_ms: float
    """Estimated time saved per step; 0 if unknown. The list is sorted by it."""


class OverheadRecord(TypedDict):
    """What profiling costs: traced against untraced steps, taken in turn, the fastest of each.

    Other work on the machine only ever adds, so the fastest are the ones to compare. All are zero
    in virtual time, where tracing takes none.
    """

    traced_ms: float
    untraced_ms: float
    fraction: float
    """``traced_ms / untraced_ms - 1``; negative within noise."""
    collect_ms: float
    """Reading the events after the step is over (median); not part of ``traced_ms``."""


class LaterRecord(TypedDict, total=False):
    """What records of earlier versions do not have."""

    in_floats: list[str]
    """Layers of a quantised model that computed in floats, a line for each operator and reason."""


class ProfileRecord(LaterRecord):
    """One profiled step."""

    format: int
    """:data:`FORMAT`."""
    date: str
    """ISO, with time and zone."""
    versions: dict[str, str]
    """Of coexec, Python and the packages that matter."""
    model: str
    """File or name."""
    mode: str
    """``inference`` or ``training``."""
    options: dict[str, Any]
    """``loss``, ``optimizer`` (training); ``inputs``: shape by input name."""
    processors: list[ProcessorRecord]
    steps: int
    """Traced steps; the one of median wall time is the one described."""
    wall_ms: float
    """Wall time of the described step."""
    residual: float
    """Largest difference between a track's categories and ``wall_ms``, as a share of it."""
    overhead: OverheadRecord
    categories: dict[str, CategoriesRecord]
    """By track."""
    transfers: dict[str, TransferRecord]
    """By track."""
    operators: list[RowRecord]
    """By operator type, most time first."""
    layers: list[RowRecord]
    """By node of the user's model, most time first."""
    phases: list[RowRecord]
    """``forward``, ``backward``, ``optimizer``; in inference all is ``forward``."""
    events: list[EventRecord]
    """In order of start."""
    memory: list[MemoryRecord]
    """In order of time."""
    peak_bytes: int
    """Device memory as planned: buffers and constants, all processors."""
    allocated_bytes: dict[str, int]
    """By track, what its allocator has given out by the end, where it counts: to this program and
    to whatever else lives in the process."""
    roofline: dict[str, RooflineRecord]
    """By track."""
    fallbacks: list[str]
    """Nodes that did not run on the first processor, one line each; empty if all did."""
    advice: list[AdviceRecord]
    verdict: str
    """One sentence."""
