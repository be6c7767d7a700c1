"""What was fitted: how far from the limits of a processor an engine's kernels are.

Factors come in levels. The most general hold for any chip, in int8 those of the instructions that
multiply for cores that have them, in other types those of cores that wait for their loads or of
all that do not (they differ from any core in speed alone), then those of a core of any revision,
those of a core's architecture, or of a family of GPUs, for chips that have it, those of one
processor of one chip for that alone; the most specific ones that exist are used, so that a chip
that nobody measured works from its TOML file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coexec.base.disk import write_atomically
from coexec.base.errors import UsageError
from coexec.core.soc import Soc
from coexec.cost.soc.defaults import IN_ORDER, LIKE
from coexec.cost.soc.trees import Trees

GENERAL = ""
WAITING, NOT_WAITING = "cores in order", "cores out of order"
SPEEDS = frozenset({WAITING, NOT_WAITING})
"""Levels that are one multiple of the level above: too few chips tell more than a speed of them."""
SHIPPED = files("coexec.cost.soc") / "coefficients.json"
VERSION = 8


@dataclass(frozen=True)
class Coefficients:
    """Fitted numbers, by group and level.

    ``factors`` has multiples of terms (:mod:`coexec.cost.soc.terms`, of NPUs
    :mod:`coexec.cost.soc.npu_terms`) under groups like ``tflite cpu float32``, ``trees``
    residuals of kernels' logarithms under ``tflite gpu``; below are levels: :data:`GENERAL`,
    ``int8 x4`` or ``cores in order`` or ``core Cortex-A55 int8 32`` or ``family adreno``,
    ``snapdragon-855 gpu``. Of other engines, ``mixes`` has multiples by kind of operator
    (:mod:`coexec.cost.soc.engine_mix`) by level, ``ncnn cpu``, or, of those that few networks were
    measured in, ``engines`` one for all kinds, ``stock-mnn-opencl gpu float32``. ``errors`` is the
    mean relative error by group, models held out; ``date`` (ISO) and ``rows`` (their number by
    group) say from what all were fitted.
    """

    factors: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    trees: Mapping[str, Mapping[str, Trees]] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    mixes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    date: str = ""

    def factors_for(self, group: str, levels: Sequence[str]) -> NDArray[np.float64]:
        """The most specific factors; ``levels`` go from general to specific.

        Raises:
            UsageError: nothing was fitted for this group.
        """
        known = self.factors.get(group, {})
        for level in reversed(levels):
            if level in known:
                return known[level]
        raise UsageError(f"no factors for {group!r}; fitted: {', '.join(sorted(self.factors))}")


def levels(soc: Soc, processor: str, precision: str) -> tuple[str, ...]:
    """Names of levels for a processor and an element type, general ones first."""
    own = f"{soc.name} {processor}"
    if processor == "gpu" and soc.gpu is not None:
        return GENERAL, f"family {soc.gpu.family}", own
    if processor.partition(":")[0] != "cpu":
        return GENERAL, own
    fastest = max((each for each, _ in soc.cores(processor)), key=lambda c: c.gflops("float32"))
    rate = fastest.flop_per_cycle.get("int8", 0)
    # Cores of one name differ in whether they have the dot product instructions.
    name = LIKE.get(fastest.core, fastest.core)
    core = f"core {name} int8 {rate:g}"
    if precision != "int8":
        order = WAITING if fastest.core in IN_ORDER else NOT_WAITING
        return GENERAL, order, f"core {name}", core, own
    # Kernels with these instructions are other programs than those without.
    return GENERAL, f"int8 x{rate / fastest.flop_per_cycle['float32']:g}", core, own


@functools.cache
def shipped() -> Coefficients:
    """Those of the package."""
    return _from_json(json.loads(SHIPPED.read_text(encoding="utf-8")))


def read_coefficients(path: Path) -> Coefficients:
    """Those of a file that :func:`write_coefficients` wrote.

    Raises:
        UsageError: unreadable, or not such a file.
    """
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no coefficients: {error!r}") from error


def write_coefficients(coefficients: Coefficients, path: Path) -> None:
    """Write a JSON file, atomically.

    Raises:
        SaveError: the file cannot be written.
    """
    record = {
        "version": VERSION,
        "date": coefficients.date,
        "rows": dict(coefficients.rows),
        "errors": {name: round(value, 4) for name, value in coefficients.errors.items()},
        "engines": {name: round(value, 4) for name, value in coefficients.engines.items()},
        "mixes": {level: _rounded(values) for level, values in coefficients.mixes.items()},
        "factors": {
            group: {level: _rounded(values) for level, values in each.items()}
            for group, each in coefficients.factors.items()
        },
        "trees": {
            group: {level: trees.to_json() for level, trees in each.items()}
            for group, each in coefficients.trees.items()
        },
    }
    data = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    write_atomically(path, lambda file: file.write(data))


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{x:.5g}") for x in values]


def _from_json(record: Mapping[str, Any]) -> Coefficients:
    if record["version"] != VERSION:
        raise ValueError(f"version {record['version']}, not {VERSION}: run coexec calibrate")
    return Coefficients(
        factors={
            group: {level: np.asarray(values, np.float64) for level, values in each.items()}
            for group, each in record["factors"].items()
        },
        trees={
            group: {level: Trees.from_json(trees) for level, trees in each.items()}
            for group, each in record["trees"].items()
        },
        engines=record["engines"],
        mixes={level: np.asarray(values, np.float64) for level, values in record["mixes"].items()},
        errors=record["errors"],
        rows=record["rows"],
        date=record["date"],
    )
