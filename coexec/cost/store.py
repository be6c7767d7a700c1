"""Measured times on disk: one JSON file per processor, driver and version, kept from run to run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coexec.base.cache import keep_merged
from coexec.base.cpu import cpu_identity
from coexec.base.knobs import cache_dir
from coexec.core.processor import ProcessorSpec
from coexec.cost.distribution import Distribution

log = logging.getLogger(__name__)
FORMAT = 6
"""Changes when what is measured changes: older files are left alone."""
WIDE_BELOW, WIDE_ABOVE = 1.1, 1.5
"""Times of a quiet machine lie closer together: the median to the first decile, the last decile to
the median (measured on two cores: so did 85 to 98 % of calls)."""
MOST_VISITS = 8
"""What is disturbed so often varies by itself."""


@dataclass(frozen=True)
class Entry:
    """A measured time; ``features`` describe the operator call to a regression.

    ``code`` is :meth:`Processor.code_of` the call when it was measured; that was ``visits`` times.
    ``seen`` is what these found where ``time`` is the middle one of them, the fastest first.
    """

    time: Distribution
    operator: str = ""
    features: tuple[float, ...] = ()
    code: str = ""
    visits: int = 1
    seen: tuple[Distribution, ...] = ()

    @property
    def unsure(self) -> bool:
        """Whether something may have disturbed it, by its spread, and another visit may tell."""
        time = self.time
        wide = (
            time.median_us > WIDE_BELOW * time.low_us or time.high_us > WIDE_ABOVE * time.median_us
        )
        return wide and self.visits < MOST_VISITS

    def or_quieter(self, again: Entry) -> Entry:
        """Of two measurements of the same the faster one: what disturbs makes it slower."""
        best = again if again.time.median_us < self.time.median_us else self
        return replace(best, visits=self.visits + again.visits)

    def or_usual(self, again: Entry) -> Entry:
        """With one visit more, the middle one of all by their medians; of two, the faster one.

        A visit that something disturbed is not the middle one, nor is one in a fast second: runs
        that are predicted have as many slow seconds as others.
        """
        found = (*(self.seen or (self.time,)), again.time)
        seen = tuple(sorted(found, key=lambda time: time.median_us))
        time = seen[(len(seen) - 1) // 2]
        return replace(self, time=time, visits=self.visits + again.visits, seen=seen)


class CostStore:
    """Entries by key. Nothing is written before :meth:`save`."""

    def __init__(self, described: ProcessorSpec, version: str, folder: Path | None = None) -> None:
        self.identity = {
            "format": str(FORMAT),
            "host": cpu_identity(),
            "processor": described.name,
            "device": described.device,
            "driver": described.driver,
            "compute_units": str(described.compute_units),
            "version": version,
        }
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        stem = re.sub(r"[^a-z0-9]+", "-", described.name.lower())
        self.path = (folder or cache_dir() / "costs") / f"{stem}-{digest[:16]}.json"
        self.entries: dict[str, Entry] = _read(self.path)
        self._changed = False
        self._dropped: set[str] = set()

    def get(self, key: str) -> Entry | None:
        """What was measured, if it was."""
        return self.entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Note a measurement."""
        self.entries[key] = entry
        self._dropped.discard(key)
        self._changed = True

    def drop(self, key: str) -> None:
        """Forget a measurement that no longer holds, in the file too."""
        del self.entries[key]
        self._dropped.add(key)
        self._changed = True

    def save(self) -> None:
        """Add what is new to the file, if that can be (see :func:`coexec.base.cache.keep`)."""
        if self._changed and keep_merged(self.path, self._merged):
            self._changed = False

    def _merged(self) -> bytes:
        """The file's entries, to which another process may have added, and these."""
        others = {k: e for k, e in _read(self.path).items() if k not in self._dropped}
        self.entries = {**others, **self.entries}
        record = {**self.identity, "entries": {k: _record(e) for k, e in self.entries.items()}}
        return json.dumps(record, indent=1).encode()


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "us": _times(entry.time),
        "operator": entry.operator,
        "features": [float(f"{value:.6g}") for value in entry.features],
        "code": entry.code,
        "visits": entry.visits,
        "seen": [_times(time) for time in entry.seen],
    }


def _times(time: Distribution) -> list[float]:
    return [round(value, 3) for value in (time.median_us, time.low_us, time.high_us)]


def _read(path: Path) -> dict[str, Entry]:
    """The file's entries; a damaged file is measured again."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _entry(each) for key, each in record["entries"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("measuring again, %s is damaged: %s", path, error)
        return {}


def _entry(record: Mapping[str, Any]) -> Entry:
    features = tuple(float(value) for value in record["features"])
    time, visits = _distribution(record["us"]), int(record.get("visits", 1))
    seen = tuple(_distribution(each) for each in record.get("seen", ()))
    return Entry(time, str(record["operator"]), features, str(record["code"]), visits, seen)


def _distribution(us: Sequence[float]) -> Distribution:
    median, low, high = (float(value) for value in us)
    if not (math.isfinite(high) and 0 <= low <= median <= high):
        raise ValueError(f"impossible times {us}")
    return Distribution(median, low, high)
