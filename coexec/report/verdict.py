"""The verdict: where the time goes, in one sentence, with the node that loses most."""

from __future__ import annotations

from coexec.report.advice import Advice, Findings, worst_point
from coexec.report.attribution import (
    BANDWIDTH,
    COMPUTE,
    DISPATCHING,
    IDLE,
    LAYOUT_TIME,
    MAPPING,
    SYNCING,
    TRANSFER,
    TrackTimes,
)
from coexec.report.wording import milliseconds, node_phrase, percent

WORDS = {
    COMPUTE: "compute",
    BANDWIDTH: "memory-bound kernels",
    LAYOUT_TIME: "layout conversion",
    TRANSFER: "transfer",
    MAPPING: "mapping",
    DISPATCHING: "dispatch",
    SYNCING: "waiting",
    IDLE: "idle",
}
NAMED = 3
"""Categories that the sentence names, the largest first."""
LEAST = 0.01


def verdict(findings: Findings, advice: list[Advice], mode: str) -> str:
    """One sentence on a step (``mode`` ``training``) or a run (``inference``)."""
    attribution = findings.attribution
    what = "a training step" if mode == "training" else "a run"
    track, times = max(
        attribution.tracks.items(), key=lambda item: item[1].busy_ns, default=("", None)
    )
    if times is None:
        took = milliseconds(attribution.wall_ns)
        return f"{what.capitalize()} takes {took} and launches nothing."
    shares = _shares(findings, times)
    name, share = shares[0]
    sentence = (
        f"{percent(share)} of {what} on {track} ({milliseconds(attribution.wall_ns)}) is "
        f"{WORDS[name]}"
    )
    sentence += "".join(f", {percent(share)} {WORDS[name]}" for name, share in shares[1:NAMED])
    worst = worst_point([point for point in attribution.points if point.track == track])
    if worst is not None:
        fraction = percent(worst.roof_ns / worst.ns)
        sentence += (
            f"; {node_phrase(worst)} loses most: it takes {milliseconds(worst.ns)} and reaches "
            f"{fraction} of the roofline"
        )
    if advice:
        sentence += f". First advice: {advice[0].title}"
    return f"{sentence}."


def _shares(findings: Findings, times: TrackTimes) -> list[tuple[str, float]]:
    """Categories by share of the wall time, those of at least one percent."""
    ranked = sorted(times.categories.items(), key=lambda item: -item[1])
    shares = [(name, findings.share(ns)) for name, ns in ranked]
    return shares[:1] + [pair for pair in shares[1:] if pair[1] >= LEAST]
