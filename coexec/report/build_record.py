"""Builds the profile record (see :mod:`coexec.report.record`) from what was measured."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coexec.core.events import HOST, RUN, Event, Trace
from coexec.core.machine import Rates
from coexec.core.program import Program
from coexec.report.advice import Advice, Findings, advise
from coexec.report.attribution import (
    TRANSFER,
    Attribution,
    Piece,
    Point,
    Row,
    TrackTimes,
)
from coexec.report.memory import memory_over_time
from coexec.report.record import (
    FORMAT,
    AdviceRecord,
    EventRecord,
    MemoryRecord,
    OverheadRecord,
    ProcessorRecord,
    ProfileRecord,
    RooflineRecord,
    RowRecord,
    TransferRecord,
)
from coexec.report.verdict import verdict

PACKAGES = ("coexec", "numpy", "onnx", "onnx-ir", "pyopencl")
MS = 1e6
"""Nanoseconds."""


@dataclass(frozen=True)
class Measured:
    """One profiled step and its surroundings.

    ``clocks``, ``findings.rates`` and ``allocated_bytes`` are by track.
    """

    model: str
    mode: str
    options: Mapping[str, Any]
    trace: Trace
    program: Program
    findings: Findings
    clocks: Mapping[str, str]
    steps: int
    overhead: OverheadRecord
    fallbacks: Sequence[str]
    allocated_bytes: Mapping[str, int]
    in_floats: Sequence[str] = ()


def build_record(measured: Measured) -> ProfileRecord:
    """The record of one step."""
    findings = measured.findings
    attribution = findings.attribution
    busy = sum(times.busy_ns for times in attribution.tracks.values())
    advice = advise(findings)
    origin = min(event.start_ns for event in measured.trace.events if event.kind == RUN)
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "model": measured.model,
        "mode": measured.mode,
        "options": dict(measured.options),
        "processors": [_processor(measured, track) for track in attribution.tracks],
        "steps": measured.steps,
        "wall_ms": attribution.wall_ns / MS,
        "residual": attribution.residual,
        "overhead": measured.overhead,
        # The keys of a track's categories are exactly those of CategoriesRecord.
        "categories": {
            name: {key: ns / MS for key, ns in times.categories.items()}  # type: ignore[misc]
            for name, times in attribution.tracks.items()
        },
        "transfers": {n: _transfer(times) for n, times in attribution.tracks.items()},
        "operators": [_row(row, busy) for row in attribution.operators],
        "layers": [_row(row, busy) for row in attribution.layers],
        "phases": [_row(row, busy) for row in attribution.phases],
        "events": _events(measured.trace, attribution, origin),
        "memory": _memory(measured, origin),
        "peak_bytes": measured.program.peak_bytes,
        "allocated_bytes": dict(measured.allocated_bytes),
        "roofline": _rooflines(attribution, findings.rates),
        "fallbacks": list(measured.fallbacks),
        "in_floats": list(measured.in_floats),
        "advice": [_advice(each) for each in advice],
        "verdict": verdict(findings, advice, measured.mode),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a processor without PyOpenCL, or a source tree on the path
    return versions


def _processor(measured: Measured, track: str) -> ProcessorRecord:
    spec, rates = measured.findings.specs[track], measured.findings.rates[track]
    return {
        "name": track,
        "kind": spec.kind,
        "device": spec.device,
        "driver": spec.driver,
        "compute_units": spec.compute_units,
        "clock": measured.clocks.get(track, "device"),
        "rates": {
            "peak_gflops": dict(rates.peak_gflops),
            "bandwidth_gbps": rates.bandwidth_gbps,
            "launch_us": rates.launch_us,
            "sync_us": rates.sync_us,
            "links": {
                n: {"latency_us": k.latency_us, "gbps": k.gbps} for n, k in rates.links.items()
            },
            "driver": rates.driver,
        },
    }


def _transfer(times: TrackTimes) -> TransferRecord:
    copies = [piece.event for piece in times.pieces if piece.category == TRANSFER]
    return {
        "latency_ms": times.latency_ns / MS,
        "starting_ms": times.starting_ns / MS,
        "bandwidth_ms": (times.categories[TRANSFER] - times.latency_ns) / MS,
        "bytes": sum(event.bytes for event in copies),
        "count": len(copies),
    }


def _row(row: Row, busy: int) -> RowRecord:
    ns = max(row.ns, 1)
    return {
        "name": row.name,
        "ms": row.ns / MS,
        "share": row.ns / busy if busy else 0.0,
        "launches": row.launches,
        "flop": row.flop,
        "bytes": row.bytes,
        "gflops": row.flop / ns,
        "gbps": row.bytes / ns,
        "roofline": row.roofline,
        "bound": row.bound,
    }


def _events(trace: Trace, attribution: Attribution, origin: int) -> list[EventRecord]:
    pieces = [piece for times in attribution.tracks.values() for piece in times.pieces]
    records = [_event(piece.event, piece.category, origin) for piece in pieces]
    records += [_event(event, "", origin) for event in trace.events if event.track == HOST]
    return sorted(records, key=lambda record: record["start_ms"])


def _event(event: Event, category: str, origin: int) -> EventRecord:
    return {
        "name": event.name,
        "operator": event.operator,
        "kind": event.kind,
        "track": event.track,
        "start_ms": (event.start_ns - origin) / MS,
        "ms": event.duration_ns / MS,
        "flop": event.flop,
        "bytes": event.bytes,
        "phase": event.phase,
        "source": event.source,
        "category": category,
    }


def _memory(measured: Measured, origin: int) -> list[MemoryRecord]:
    return [
        {
            "t_ms": (usage.time_ns - origin) / MS,
            "track": usage.track,
            "bytes": usage.nbytes,
            "kinds": dict(usage.kinds),
        }
        for usage in memory_over_time(measured.program, measured.trace)
    ]


def _rooflines(attribution: Attribution, rates: Mapping[str, Rates]) -> dict[str, RooflineRecord]:
    return {
        track: _roofline(track, times.pieces, attribution.points, rates[track])
        for track, times in attribution.tracks.items()
    }


def _roofline(
    track: str, pieces: Sequence[Piece], points: Iterable[Point], rates: Rates
) -> RooflineRecord:
    work: dict[str, int] = {}
    for piece in pieces:
        if piece.event.dtype in rates.peak_gflops:
            work[piece.event.dtype] = work.get(piece.event.dtype, 0) + piece.event.flop
    dtype = max(work, key=lambda name: work[name], default="float32")
    top = rates.gflops(dtype)
    return {
        "peak_gflops": top,
        "dtype": dtype,
        "bandwidth_gbps": rates.bandwidth_gbps,
        "ridge": top / rates.bandwidth_gbps,
        "points": [
            {
                "name": point.name,
                "operator": point.operator,
                "track": track,
                "phase": point.phase,
                "source": point.source,
                "ms": point.ns / MS,
                "intensity": point.flop / point.bytes,
                "gflops": point.flop / point.ns,
                "fraction": point.roof_ns / point.ns,
            }
            for point in points
            if point.track == track
        ],
    }


def _advice(advice: Advice) -> AdviceRecord:
    return {
        "title": advice.title,
        "evidence": advice.evidence,
        "suggestion": advice.suggestion,
        "saving_ms": advice.saving_ns / MS,
    }
