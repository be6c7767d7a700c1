"""Targets of the suites that hold us against peers and against the device's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bench.contenders import SINGLE
from bench.statistics import geomean

Record = Mapping[str, Any]
Line = tuple[str, str, str]
"""Work, target, what was measured."""

STREAMING = 0.75
"""Share of the streaming rate that memory-bound work should reach."""


def ours(suite: Record) -> Iterator[tuple[str, list[tuple[str, Record, Record]]]]:
    """By each of our runtimes in single precision: the case's name, our row of it, the case."""
    found: dict[str, list[tuple[str, Record, Record]]] = {}
    for case in suite["cases"]:
        for row in case["rows"]:
            if row["ours"] and row["precision"] == SINGLE and "seconds" in row:
                found.setdefault(row["peer"], []).append((case["name"], row, case))
    yield from found.items()


def ratios(mean: float | Mapping[str, float], worst: float = 0.0) -> Callable[[Record], list[Line]]:
    """Targets of ratios to the best peer: geometric mean (by runtime), and what none may exceed."""

    def lines(suite: Record) -> list[Line]:
        result = []
        for peer, rows in ours(suite):
            values = {name: row["ratio"]["value"] for name, row, _ in rows if "ratio" in row}
            if not values:
                continue
            most = mean if isinstance(mean, float) else mean.get(peer, max(mean.values()))
            aim = f"geometric mean at most {most:g}" + (f", none above {worst:g}" if worst else "")
            bound = worst or most
            above = sum(value > bound for value in values.values())
            text = f"{geomean(list(values.values())):.2f}; {above} of {len(values)} above {bound:g}"
            result.append((f"{peer}: time over the best peer's", aim, text))
        return result

    return lines


def streaming(suite: Record) -> list[Line]:
    """Share of the measured streaming rate, of the least traffic."""
    rate = max((device["bandwidth_gbps"] for device in suite["limits"].values()), default=0.0)
    if not rate:
        return []
    result = []
    for peer, rows in ours(suite):
        shares = {name: row["gbps"] / rate for name, row, _ in rows}
        least = min(shares, key=lambda name: shares[name])
        reached = sum(share >= STREAMING for share in shares.values())
        text = f"{reached} of {len(shares)} reach it, least {100 * shares[least]:.0f} % ({least})"
        result.append((f"{peer}: of the streaming rate", f"at least {100 * STREAMING:.0f} %", text))
    return result


def training(suite: Record) -> list[Line]:
    """Steps beside PyTorch, MNN and tinygrad; memory; time to the first step."""
    lines = _against(suite, "PyTorch", "geometric mean at most 0.8, none above 1.1")
    lines += _against(suite, "MNN training", "at most 0.5")
    lines += _against(suite, "tinygrad", "at most 0.1")
    lines += [*_memory(suite), *_start(suite)]
    return lines


def _against(suite: Record, library: str, aim: str) -> list[Line]:
    """Our median over the median of the library's fastest form; tinygrad's on the same runtime."""
    result = []
    for peer, rows in ours(suite):
        name = f"{library} {peer.removeprefix('coexec ')}" if library == "tinygrad" else library
        values = {}
        for case_name, row, case in rows:
            theirs = _seconds(case, name)
            if theirs:
                values[case_name] = row["seconds"] / min(theirs)
        if values:
            worst = max(values, key=lambda each: values[each])
            text = f"{geomean(list(values.values())):.2f}"
            if len(values) > 1:
                text += f", worst {values[worst]:.2f} ({worst})"
            result.append((f"{peer}: step over {library}'s", aim, text))
    return result


def _seconds(case: Record, name: str) -> list[float]:
    return [
        row["seconds"]
        for row in case["rows"]
        if row["peer"].startswith(name) and row["precision"] == SINGLE and "seconds" in row
    ]


def _memory(suite: Record) -> list[Line]:
    result = []
    for peer, rows in ours(suite):
        values = {}
        for name, row, case in rows:
            grown = [
                other["facts"]["grown_bytes"]
                for other in case["rows"]
                if other["peer"].startswith("PyTorch")
                and other["precision"] == SINGLE
                and "grown_bytes" in other["facts"]
            ]
            if grown and "planned_bytes" in row["facts"]:
                values[name] = row["facts"]["planned_bytes"] / min(grown)
        if values:
            worst = max(values, key=lambda each: values[each])
            text = f"{geomean(list(values.values())):.2f}, most {values[worst]:.2f} ({worst})"
            result.append((f"{peer}: planned bytes over PyTorch's growth", "at most 0.7", text))
    return result


def _start(suite: Record) -> list[Line]:
    return [
        (f"{peer}: first step after start, {name}, warm caches", "at most 2 s", f"{seconds:.1f} s")
        for peer, rows in ours(suite)
        for name, row, _ in rows
        if name.startswith("ResNet-18") and (seconds := row["facts"].get("start_warm_s"))
    ]


def launches(suite: Record) -> list[Line]:
    """Host time of a launch, whatever the model."""
    result = []
    for peer, rows in ours(suite):
        found = [row["facts"]["host_us"] for _, row, _ in rows if "host_us" in row["facts"]]
        if found:
            text = f"{min(found):.1f} to {max(found):.1f} us"
            driver = suite["limits"].get(peer, {}).get("launch_us")
            if driver:
                text += f", of which the driver's enqueueing of an empty kernel {driver:.1f} us"
            result.append((f"{peer}: host time of a launch", "at most 5 us", text))
    return result


SPEED_TARGETS: Mapping[str, Callable[[Record], Sequence[Line]]] = MappingProxyType(
    {
        "gemm": ratios({"coexec intel": 1.0, "coexec pocl": 1.05}),
        "conv": ratios(0.85, 1.5),
        "memory": streaming,
        "train": training,
        "infer": ratios(1.0),
        "launch": launches,
    }
)
"""By the suite's name."""
