"""Perfetto files, read back with Perfetto's own parser."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    CounterDescriptor,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace

import coexec
from coexec.core.events import COPY, DISPATCH, HOST, LAUNCH, RUN, SYNC, Event, Trace
from coexec.core.processor import Executable
from coexec.core.program import (
    BOUNDARY,
    INPUT,
    OUTPUT,
    SCRATCH,
    STATE,
    BufferSpec,
    Free,
    Launch,
    Program,
    Read,
    Wait,
    Write,
)
from coexec.report.flows import runs_of, steps_of, tensor_flows
from coexec.report.perfetto_trace import write_perfetto
from tests.pipeline.small import FEATURES, network


@dataclass
class File:
    """A Perfetto file taken apart; times in ns."""

    tracks: dict[int, TrackDescriptor] = field(default_factory=dict)
    slices: dict[str, list[tuple[int, int, str]]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, dict[str, str | int]] = field(default_factory=dict)
    arrows: set[tuple[str, str]] = field(default_factory=set)
    counters: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def name(self, uuid: int) -> str:
        return str(self.tracks[uuid].name)


def parse(path: Path) -> File:
    trace = PerfettoTrace()
    trace.ParseFromString(path.read_bytes())
    file = File()
    begun: dict[int, list[tuple[int, str]]] = defaultdict(list)
    tails: dict[int, str] = {}
    heads: dict[int, str] = {}
    for packet in sorted(trace.packet, key=lambda one: one.timestamp):
        if packet.HasField("track_descriptor"):
            assert packet.track_descriptor.uuid not in file.tracks
            file.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            continue
        event = packet.track_event
        track = file.name(event.track_uuid)
        if event.type == TrackEvent.TYPE_COUNTER:
            file.counters[track].append((packet.timestamp, event.counter_value))
        elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
            begun[event.track_uuid].append((packet.timestamp, event.name))
            file.notes[event.name] = {
                a.name: a.int_value if a.HasField("int_value") else a.string_value
                for a in event.debug_annotations
            }
            tails.update(dict.fromkeys(event.flow_ids, event.name))
            heads.update(dict.fromkeys(event.terminating_flow_ids, event.name))
        else:
            assert event.type == TrackEvent.TYPE_SLICE_END
            start, name = begun[event.track_uuid].pop()
            file.slices[track].append((start, packet.timestamp, name))
    assert not any(begun.values())
    assert set(tails) == set(heads)
    file.arrows = {(tails[flow], heads[flow]) for flow in tails}
    return file


def host(name: str, kind: str, start: int, end: int) -> Event:
    return Event(name, kind, HOST, start, end)


def kernel(name: str, track: str, start: int, end: int) -> Event:
    return Event(name, LAUNCH, track, start, end, flop=10, bytes=20, operator=f"{name}.k")


def region(*parts: Event) -> Event:
    first, last = parts[0], parts[-1]
    return Event("kernels", LAUNCH, first.track, first.start_ns, last.end_ns, parts=parts)


# x -> gpu: conv, relu -> (through the host) -> cpu: softmax -> y
PROGRAM = Program(
    instructions=(
        Write("x", "x@gpu"),
        Launch(0, ("w", "x@gpu", "m@gpu", "#scratch")),
        Read("m#staged", "m@gpu"),
        Wait(),
        Free("m@gpu"),
        Write("m#staged", "m@cpu"),
        Launch(1, ("m@cpu", "y@cpu")),
        Read("y", "y@cpu"),
        Wait(),
    ),
    executables=(
        Executable("gpu", ("w", "x"), ("m",), 64, 64),
        Executable("cpu", ("m",), ("y",), 0, 0),
    ),
    buffers=(
        BufferSpec("w", "gpu", 1000, STATE),
        BufferSpec("x@gpu", "gpu", 16, INPUT),
        BufferSpec("m@gpu", "gpu", 32, BOUNDARY),
        BufferSpec("#scratch", "gpu", 64, SCRATCH),
        BufferSpec("m@cpu", "cpu", 32, BOUNDARY),
        BufferSpec("y@cpu", "cpu", 8, OUTPUT),
    ),
    inputs=("x",),
    outputs=("y",),
    state=("w",),
)


def one_run(at: int = 0) -> list[Event]:
    """What the executor records when :data:`PROGRAM` runs from ``at`` on."""
    dispatches = [
        host("write x", DISPATCH, at + 101, at + 102),
        host("submit", DISPATCH, at + 110, at + 114),
        host("read m#staged", DISPATCH, at + 115, at + 116),
        host("wait", SYNC, at + 116, at + 170),
        host("write m#staged", DISPATCH, at + 171, at + 172),
        host("submit", DISPATCH, at + 173, at + 174),
        host("read y", DISPATCH, at + 175, at + 176),
        host("wait", SYNC, at + 176, at + 230),
        host("run", RUN, at + 100, at + 240),
    ]
    work = [
        Event("x in", COPY, "gpu", at + 103, at + 108, bytes=16),
        region(
            replace(kernel("conv", "gpu", at + 120, at + 140), live=64),
            kernel("relu", "gpu", at + 140, at + 150),
        ),
        Event("m out", COPY, "gpu", at + 155, at + 165, bytes=32),
        Event("m in", COPY, "cpu", at + 180, at + 185, bytes=32),
        region(kernel("softmax", "cpu", at + 190, at + 200)),
        Event("y out", COPY, "cpu", at + 210, at + 220, bytes=8),
    ]
    return [*dispatches, *work]


@pytest.fixture
def file(tmp_path: Path) -> File:
    write_perfetto(Trace(one_run()), tmp_path / "trace", PROGRAM)
    return parse(tmp_path / "trace")


def test_a_track_for_the_host_and_one_per_processor(file: File) -> None:
    assert {name: len(found) for name, found in file.slices.items()} == {
        "host": 9,
        "gpu": 4,
        "cpu": 3,
    }
    assert (120, 140, "conv.k") in file.slices["gpu"]
    assert (100, 240, "run") in file.slices["host"]


def test_slices_carry_what_is_known_of_them(tmp_path: Path) -> None:
    event = Event(
        *("Conv_12", LAUNCH, "gpu", 5, 9),
        flop=300,
        bytes=70,
        operator="Conv.tiled",
        phase="backward",
        source="conv12",
        choice="tiled MR=8",
    )
    write_perfetto(Trace([event]), tmp_path / "trace")
    assert parse(tmp_path / "trace").notes == {
        "Conv.tiled": {
            "node": "Conv_12",
            "kind": "launch",
            "phase": "backward",
            "layer": "conv12",
            "FLOP": 300,
            "bytes": 70,
            "kernel": "tiled MR=8",
        }
    }


DISPATCHED = {
    ("write x", "x in"),
    ("submit", "conv.k"),
    ("read m#staged", "m out"),
    ("write m#staged", "m in"),
    ("submit", "softmax.k"),
    ("read y", "y out"),
}
PRODUCED = {
    ("x in", "conv.k"),
    ("relu.k", "m out"),
    ("m out", "m in"),
    ("m in", "softmax.k"),
    ("softmax.k", "y out"),
}


def test_arrows_from_dispatch_to_work_and_from_producer_to_consumer(file: File) -> None:
    assert file.arrows == DISPATCHED | PRODUCED


def test_without_a_program_there_are_the_arrows_of_the_dispatches(tmp_path: Path) -> None:
    write_perfetto(Trace(one_run()), tmp_path / "trace")
    found = parse(tmp_path / "trace")
    assert found.arrows == DISPATCHED
    assert not found.counters


def test_memory_in_use_is_a_counter_below_its_processor(file: File) -> None:
    resident = 1000 + 16  # state and input
    assert file.counters["gpu memory"] == [
        (103, resident),
        (120, resident + 32 + 64),  # what the other processor will get, and conv's own need
        (140, resident + 32),
        (150, resident),
    ]
    assert file.counters["cpu memory"] == [(103, 8), (190, 8 + 32)]
    assert file.counters["gpu memory: parameters"] == [(103, 1000)]
    assert file.counters["gpu memory: data"] == [(103, 16)]
    assert file.counters["gpu memory: activations"] == [(120, 32 + 64), (140, 32), (150, 0)]
    (gpu,) = [track.uuid for track in file.tracks.values() if track.name == "gpu"]
    (counter,) = [track for track in file.tracks.values() if track.name == "gpu memory"]
    assert counter.parent_uuid == gpu
    assert counter.counter.unit == CounterDescriptor.UNIT_SIZE_BYTES


def test_every_run_is_matched_for_itself_and_a_broken_one_is_left_out() -> None:
    broken = one_run(1000)[:4]
    runs = runs_of(Trace([*one_run(), *broken, *one_run(2000)]))
    assert [len(works) for works in runs] == [6, 6]
    for works, at in zip(runs, (0, 2000), strict=True):
        assert [work.dispatch.start_ns for work in works[:2]] == [at + 101, at + 110]
        assert works[1].first.name == "conv"
        assert works[1].last.name == "relu"
        steps = steps_of(works, PROGRAM)
        assert len(list(tensor_flows(steps, PROGRAM))) == len(PRODUCED)


def test_a_read_that_nobody_wanted_has_no_work() -> None:
    events = [e for e in one_run() if e.name not in ("read y", "y out")]
    (works,) = runs_of(Trace(events))
    names = {(a.name, b.name) for a, b in tensor_flows(steps_of(works, PROGRAM), PROGRAM)}
    assert names == {("x in", "conv"), ("relu", "m out"), ("m out", "m in"), ("m in", "softmax")}


def test_runs_of_another_program_are_not_matched(tmp_path: Path) -> None:
    (works,) = runs_of(Trace(one_run()))
    other = replace(PROGRAM, instructions=PROGRAM.instructions[:3])
    assert steps_of(works, other) == []
    write_perfetto(Trace(one_run()), tmp_path / "trace", other)
    assert parse(tmp_path / "trace").arrows == DISPATCHED


def test_work_at_the_same_time_gets_a_queue_of_its_own(tmp_path: Path) -> None:
    events = [kernel("a", "gpu", 0, 10), kernel("b", "gpu", 5, 15), kernel("c", "gpu", 10, 20)]
    write_perfetto(Trace(events), tmp_path / "trace")
    found = parse(tmp_path / "trace")
    assert found.slices == {
        "gpu": [(0, 10, "a.k"), (10, 20, "c.k")],
        "gpu queue 2": [(5, 15, "b.k")],
    }


def test_no_arrow_points_to_the_past(tmp_path: Path) -> None:
    """A device clock that is early by more than a dispatch takes."""
    events = [
        host("submit", DISPATCH, 50, 60),
        host("run", RUN, 40, 90),
        region(kernel("a", "gpu", 45, 55)),
    ]
    write_perfetto(Trace(events), tmp_path / "trace")
    assert parse(tmp_path / "trace").arrows == set()


def test_a_real_run(tmp_path: Path) -> None:
    session = coexec.compile(coexec.load(network(), {"x": (2, FEATURES)}), ["opencl"])
    trace = Trace()
    session.run({"x": np.ones((2, FEATURES), np.float32)}, trace=trace)
    write_perfetto(trace, tmp_path / "trace", session.program)
    found = parse(tmp_path / "trace")
    processor = next(iter(session.processors))
    assert {"host", processor} <= set(found.slices)
    assert {"write x"} < {tail for tail, _ in found.arrows}
    levels = found.counters[f"{processor} memory"]
    assert 0 < max(level for _, level in levels) <= session.peak_bytes
