"""Two profile records side by side: what became faster, what slower, by how much."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from coexec.base.errors import DataError
from coexec.report.record import FORMAT, ProfileRecord

Row = Mapping[str, Any]


class ChangeRecord(TypedDict):
    """One category, operator type or layer in both runs; absent in one of them is 0 ms there."""

    name: str
    before_ms: float
    after_ms: float
    delta_ms: float
    """``after_ms - before_ms``: negative is faster."""
    ratio: float | None
    """``after_ms / before_ms``; ``None`` where the first run has none of it."""
    before_launches: int
    after_launches: int


class TrackChangeRecord(TypedDict):
    """The categories of one pair of tracks."""

    name: str
    categories: list[ChangeRecord]


class ComparisonRecord(TypedDict):
    """What :func:`compare` finds; lists of changes are sorted by their size."""

    names: list[str]
    wall_ms: list[float]
    ratio: float
    """Wall time of the second run / that of the first."""
    verdict: str
    differences: list[str]
    """What else differs between the runs than time: model, mode, options, devices."""
    tracks: list[TrackChangeRecord]
    operators: list[ChangeRecord]
    layers: list[ChangeRecord]


def read_record(path: Path) -> ProfileRecord:
    """A record as ``coexec profile --json`` prints it.

    Raises:
        DataError: no such file, not JSON, not a profile record, or one of another format.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); {_HOW}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} holds no JSON object; {_HOW}")
    missing = sorted(ProfileRecord.__required_keys__ - record.keys())
    if missing:
        raise DataError(f"{path} is no profile record: {', '.join(missing)} missing; {_HOW}")
    if record["format"] != FORMAT:
        raise DataError(
            f"{path} has format {record['format']!r}, this coexec reads format {FORMAT}; "
            "profile the model again"
        )
    _check_numbers(path, record)
    return cast("ProfileRecord", record)


_HOW = "write one with: coexec profile MODEL.onnx --json > FILE"


def _check_numbers(path: Path, record: Mapping[str, Any]) -> None:
    """The values that a comparison calculates with."""
    try:
        times = [record["wall_ms"]]
        times += [ms for parts in record["categories"].values() for ms in parts.values()]
        times += [row["ms"] for key in ("operators", "layers") for row in record[key]]
        for row in (*record["operators"], *record["layers"]):
            _ = row["name"], row["launches"]
        fits = all(isinstance(ms, (int, float)) for ms in times) and record["wall_ms"] > 0
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is a damaged profile record ({error!r}); {_HOW}") from error
    if not fits:
        raise DataError(f"{path} is a damaged profile record: a time is no number; {_HOW}")


def compare(before: Row, after: Row, names: Sequence[str] = ("A", "B")) -> ComparisonRecord:
    """Differences from ``before`` to ``after``, two profile records with one name each."""
    operators = _changes(before["operators"], after["operators"])
    ratio = after["wall_ms"] / before["wall_ms"]
    return {
        "names": list(names),
        "wall_ms": [before["wall_ms"], after["wall_ms"]],
        "ratio": ratio,
        "verdict": _verdict(before["wall_ms"], after["wall_ms"], operators),
        "differences": _differences(before, after),
        "tracks": _tracks(before["categories"], after["categories"]),
        "operators": operators,
        "layers": _changes(before["layers"], after["layers"]),
    }


def _verdict(before: float, after: float, operators: Sequence[ChangeRecord]) -> str:
    if after <= before:
        first = f"B is {before / after:.2f} times as fast as A"
    else:
        first = f"B takes {after / before:.2f} times as long as A"
    sentence = f"{first}: {before:.3f} ms became {after:.3f} ms"
    if not operators or operators[0]["delta_ms"] == 0:
        return f"{sentence}."
    top = operators[0]
    direction = "less" if top["delta_ms"] < 0 else "more"
    return f"{sentence}; {top['name']} changed most, {abs(top['delta_ms']):.3f} ms {direction}."


def _differences(before: Row, after: Row) -> list[str]:
    """Sentences on what makes the two runs different experiments."""
    pairs: list[tuple[str, Any, Any]] = [
        (key, before[key], after[key]) for key in ("model", "mode", "versions")
    ]
    options = sorted({*before["options"], *after["options"]})
    pairs += [(key, before["options"].get(key), after["options"].get(key)) for key in options]
    pairs.append(("processors", _devices(before), _devices(after)))
    return [f"{key}: {_words(a)} in A, {_words(b)} in B" for key, a, b in pairs if a != b]


def _devices(record: Row) -> list[str]:
    return [f"{one['name']} ({one['device']})" for one in record["processors"]]


def _words(value: Any) -> str:
    match value:
        case None:
            return "none"
        case Mapping():
            return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(_words, value))
        case _:
            return str(value)


def _tracks(before: Row, after: Row) -> list[TrackChangeRecord]:
    """Tracks of the same name belong together, and so do the only tracks of both runs."""
    if len(before) == len(after) == 1 and list(before) != list(after):
        (old, old_parts), (new, new_parts) = *before.items(), *after.items()
        return [_track(f"{old} → {new}", old_parts, new_parts)]
    names = dict.fromkeys([*before, *after])
    return [_track(name, before.get(name, {}), after.get(name, {})) for name in names]


def _track(name: str, before: Row, after: Row) -> TrackChangeRecord:
    """Categories keep their order: it is the same in every table."""
    names = dict.fromkeys([*before, *after])
    return {
        "name": name,
        "categories": [_change(key, before.get(key, 0.0), after.get(key, 0.0)) for key in names],
    }


def _changes(before: Iterable[Row], after: Iterable[Row]) -> list[ChangeRecord]:
    old = {row["name"]: row for row in before}
    new = {row["name"]: row for row in after}
    absent = {"ms": 0.0, "launches": 0}
    pairs = [(name, old.get(name, absent), new.get(name, absent)) for name in {**old, **new}]
    changes = [_change(n, a["ms"], b["ms"], a["launches"], b["launches"]) for n, a, b in pairs]
    return sorted(changes, key=lambda change: -abs(change["delta_ms"]))


def _change(
    name: str, before: float, after: float, before_launches: int = 0, after_launches: int = 0
) -> ChangeRecord:
    return {
        "name": name,
        "before_ms": before,
        "after_ms": after,
        "delta_ms": after - before,
        "ratio": after / before if before > 0 else None,
        "before_launches": before_launches,
        "after_launches": after_launches,
    }
