"""A profile record whose every figure follows from a few chosen ones: no device is needed."""

from __future__ import annotations

import itertools
from typing import Any

TRACK = "opencl:pocl"
PEAK, BANDWIDTH = 140.0, 22.0
LAYERS = (
    # layer, operator type, FLOP, bytes of the forward pass, share of the roofline it reaches
    ("conv1", "Conv", 236_000_000, 1_900_000, 0.46),
    ("relu1", "Relu", 1_050_000, 8_400_000, 0.71),
    ("conv2", "Conv", 462_000_000, 2_600_000, 0.21),
    ("pool1", "MaxPool", 2_100_000, 5_200_000, 0.38),
    ("block1/conv/3x3", "Conv", 924_000_000, 4_100_000, 0.58),
    ("block1/norm", "BatchNormalization", 4_200_000, 6_300_000, 0.52),
    ("fc", "Gemm", 33_500_000, 2_200_000, 0.83),
    ("loss", "SoftmaxCrossEntropyLoss", 9_600, 12_800, 0.04),
)
PASSES = (("forward", 1.0), ("backward", 2.0), ("optimizer", 0.05))


def make_record(speed: float = 1.0, model: str = "resnet_tiny.onnx") -> dict[str, Any]:
    """A training step; ``speed`` makes every kernel that many times faster."""
    points = [_point(layer, phase, factor, speed) for phase, factor in PASSES for layer in LAYERS]
    events, wall = _events(points)
    categories = _categories(events, wall)
    return {
        "format": 2,
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"coexec": "0.1.0", "python": "3.11.2", "numpy": "2.0.0"},
        "model": model,
        "mode": "training",
        "options": {
            "loss": "softmax_cross_entropy",
            "optimizer": "sgd",
            "inputs": {"x": [32, 3, 32, 32]},
        },
        "processors": [_processor()],
        "steps": 7,
        "wall_ms": wall,
        "residual": 0.0003,
        "overhead": {
            "traced_ms": wall,
            "untraced_ms": wall / 1.012,
            "fraction": 0.012,
            "collect_ms": 1.5,
        },
        "categories": {TRACK: categories},
        "transfers": {
            TRACK: {
                "latency_ms": 0.25 * categories["transfer"],
                "starting_ms": 0.0,
                "bandwidth_ms": 0.75 * categories["transfer"],
                "bytes": 393_344,
                "count": 2,
            }
        },
        "operators": _rows(points, "operator"),
        "layers": _rows(points, "source"),
        "phases": _rows(points, "phase"),
        "events": events,
        "memory": _memory(events),
        "peak_bytes": 48_000_000,
        "allocated_bytes": {TRACK: 48_000_000},
        "roofline": {
            TRACK: {
                "peak_gflops": PEAK,
                "dtype": "float32",
                "bandwidth_gbps": BANDWIDTH,
                "ridge": PEAK / BANDWIDTH,
                "points": points,
            }
        },
        "fallbacks": [],
        "in_floats": [],
        "advice": [
            {
                "title": "conv2 is far from the roofline",
                "evidence": "Its kernels reach 21 % of 140 GFLOP/s and take 32 % of the step.",
                "suggestion": "Tune its kernel: coexec tune --operator Conv.",
                "saving_ms": 9.4,
            },
            {
                "title": "Small batch",
                "evidence": "A launch takes 0.21 ms on average, 5 % of it is the launch itself.",
                "suggestion": "Use a larger batch.",
                "saving_ms": 0.0,
            },
        ],
        "verdict": (
            f"91 % of a training step on {TRACK} is compute, 1 % transfer; the weight gradient of "
            "conv2 reaches 21 % of the roofline and takes a fifth of the step."
        ),
    }


def _point(
    layer: tuple[str, str, int, int, float], phase: str, factor: float, speed: float
) -> dict[str, Any]:
    name, operator, flop, nbytes, reached = layer
    # Gradients touch more memory and reach less.
    flop, nbytes = int(flop * factor), int(nbytes * factor * (1 + factor / 3))
    fraction = reached * speed / (1 + factor / 4)
    attainable = min(PEAK, flop / nbytes * BANDWIDTH)
    ms = flop / (attainable * fraction) / 1e6
    return {
        "name": name if phase == "forward" else f"{name}_{phase}",
        "operator": operator if phase == "forward" else f"{operator}Grad",
        "track": TRACK,
        "phase": phase,
        "source": name,
        "ms": ms,
        "intensity": flop / nbytes,
        "gflops": flop / ms / 1e6,
        "fraction": fraction,
    }


def _events(points: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], float]:
    """Input copy, kernels with a gap after each, output copy; and the host meanwhile."""
    events = [_event("write x", "copy", TRACK, 0.05, 0.06, "transfer", nbytes=393_216)]
    now = 0.15
    for point in points:
        flop = round(point["gflops"] * point["ms"] * 1e6)
        bound = "compute" if point["intensity"] > PEAK / BANDWIDTH else "bandwidth"
        if point["operator"] == "Gemm":
            events.append(_event(point["name"], "layout", TRACK, now, 0.02, "layout", point))
            now += 0.02
        events.append(
            _event(point["name"], "launch", TRACK, now, point["ms"], bound, point, flop=flop)
        )
        now += point["ms"] + 0.008
    events.append(_event("read loss", "copy", TRACK, now, 0.03, "transfer", nbytes=128))
    wall = now + 0.1
    events += [
        _event("run", "run", "host", 0.0, wall, ""),
        _event("write x", "dispatch", "host", 0.01, 0.04, ""),
        _event("submit", "dispatch", "host", 0.06, 0.8, ""),
        _event("wait", "sync", "host", 0.9, wall - 1.0, ""),
    ]
    return sorted(events, key=lambda event: float(event["start_ms"])), wall


def _event(
    name: str,
    kind: str,
    track: str,
    start: float,
    ms: float,
    category: str,
    point: dict[str, Any] | None = None,
    flop: int = 0,
    nbytes: int = 0,
) -> dict[str, Any]:
    point = point or {"operator": "", "phase": "", "source": "", "intensity": 1.0}
    return {
        "name": name,
        "operator": f"{point['operator']}.{kind}" if point["operator"] else "",
        "kind": kind,
        "track": track,
        "start_ms": start,
        "ms": ms,
        "flop": flop,
        "bytes": nbytes or round(flop / point["intensity"]),
        "phase": point["phase"],
        "source": point["source"],
        "category": category,
    }


def _categories(events: list[dict[str, Any]], wall: float) -> dict[str, float]:
    names = ("compute", "bandwidth", "layout", "transfer", "map", "dispatch", "sync", "idle")
    parts = {name: sum(e["ms"] for e in events if e["category"] == name) for name in names}
    rest = wall - sum(parts.values())
    return {**parts, "dispatch": 0.3 * rest, "sync": 0.5 * rest, "idle": 0.2 * rest}


def _rows(points: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    busy = sum(point["ms"] for point in points)
    groups = itertools.groupby(sorted(points, key=lambda point: str(point[key])), lambda p: p[key])
    rows = [_row(str(name), list(members), busy) for name, members in groups]
    return sorted(rows, key=lambda row: -row["ms"])


def _row(name: str, points: list[dict[str, Any]], busy: float) -> dict[str, Any]:
    ms = sum(point["ms"] for point in points)
    flop = round(sum(point["gflops"] * point["ms"] * 1e6 for point in points))
    nbytes = round(sum(p["gflops"] * p["ms"] * 1e6 / p["intensity"] for p in points))
    return {
        "name": name,
        "ms": ms,
        "share": ms / busy,
        "launches": len(points),
        "flop": flop,
        "bytes": nbytes,
        "gflops": flop / ms / 1e6,
        "gbps": nbytes / ms / 1e6,
        "roofline": sum(point["fraction"] * point["ms"] for point in points) / ms,
        "bound": "compute" if flop / nbytes > PEAK / BANDWIDTH else "bandwidth",
    }


def _memory(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Activations pile up in the forward pass and go in the backward pass."""
    live = 20_000_000
    steps = [{"t_ms": 0.0, "track": TRACK, "bytes": live, "kinds": {"parameters": live}}]
    for event in events:
        if event["kind"] == "launch":
            live += {"forward": 3_500_000, "backward": -3_500_000}.get(event["phase"], 0)
            kinds = {"parameters": 20_000_000, "activations": live - 20_000_000}
            entry = {"t_ms": event["start_ms"], "track": TRACK, "bytes": live, "kinds": kinds}
            steps.append(entry)
    return steps


def _processor() -> dict[str, Any]:
    link = {"latency_us": 9.0, "gbps": 8.0}
    return {
        "name": TRACK,
        "kind": "cpu",
        "device": "a processor of the tests",
        "driver": "none",
        "compute_units": 2,
        "clock": "device",
        "rates": {
            "peak_gflops": {"float32": PEAK, "float64": PEAK / 2},
            "bandwidth_gbps": BANDWIDTH,
            "launch_us": 4.0,
            "sync_us": 21.0,
            "links": {"write": link, "read": link},
            "driver": "none",
        },
    }
