"""A peer that computes something else is not a peer: results are compared before times count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Results = Sequence[NDArray[Any]]


def difference(a: Results, b: Results, tolerance: float) -> str:
    """How two peers' results differ beyond ``tolerance`` of the largest magnitude; "" if not."""
    if len(a) != len(b):
        return f"{len(a)} results instead of {len(b)}"
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape:
            return f"result {i} has shape {x.shape} instead of {y.shape}"
        if not x.size:
            continue
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return f"result {i} is not finite"
        scale = max(float(np.abs(x).max()), float(np.abs(y).max()))
        apart = float(np.abs(x - y).max()) / (scale or 1.0)
        if apart > tolerance:
            return f"result {i} is off by {apart:.2g} of its largest magnitude"
    return ""


def yardstick(results: Mapping[str, Results], tolerance: float) -> str:
    """Whose result the most others share; among equals the first. There must be results."""
    agree = {
        name: sum(not difference(other, result, tolerance) for other in results.values())
        for name, result in results.items()
    }
    return max(results, key=lambda name: agree[name])


def dissenters(results: Mapping[str, Results], best: str, tolerance: float) -> dict[str, str]:
    """Who computes something else than ``best``, with the reason."""
    found = {
        name: difference(result, results[best], tolerance)
        for name, result in results.items()
        if name != best
    }
    return {name: f"not {best}'s result: {text}" for name, text in found.items() if text}


def load_results(path: Path) -> Results:
    """What a worker wrote, in its order."""
    with np.load(path) as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files))]
