"""Tuned values as a JSON file: written, read, merged, and told from those that no longer hold.

::

    {"format": 1,
     "device": {"name": "...", "vendor": "...", "unit_kind": "cpu", "vector_bytes": 32,
                "compute_units": 2},
     "entries": [
      {"operator": "Gemm", "kind": "float32,float32:float32", "sizes": [512, 512, 512],
       "variant": "packed", "values": {"MR": 8}, "default_ms": 1.9, "ms": 1.4,
       "date": "2026-01-31T10:00:00+00:00", "sources": {"packed": "0123456789abcdef"}}]}

``sources`` are digests of the kernel files that the entry's kernels were built from: an entry for
another text is stale.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from coexec.base.disk import write_atomically
from coexec.base.errors import UsageError
from coexec.processors.opencl.choose import variant_named
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.sources import kernel_source
from coexec.processors.opencl.tuning.key import CallKey

FORMAT = 1
DIGITS = 4
"""Significant digits of times."""


@dataclass(frozen=True)
class DeviceId:
    """The device that values were tuned on; ``vendor`` and what it computes with make its kin."""

    name: str
    vendor: str
    unit_kind: str
    vector_bytes: int
    compute_units: int

    @classmethod
    def of(cls, facts: DeviceFacts) -> DeviceId:
        return cls(
            facts.name, facts.vendor, facts.unit_kind, facts.vector_bytes, facts.compute_units
        )

    def is_kin(self, other: DeviceId) -> bool:
        """Same vendor, kind of compute unit and vector width."""
        mine, theirs = ((d.vendor, d.unit_kind, d.vector_bytes) for d in (self, other))
        return mine == theirs


@dataclass(frozen=True)
class Entry:
    """The best choice found for a call: variant, values, and milliseconds beside the default's.

    Where the default was not beaten the two times are equal, and the entry says just that: whatever
    the defaults are, they stand.
    """

    key: CallKey
    variant: str
    values: Mapping[str, int]
    default_ms: float
    ms: float
    date: str
    sources: Mapping[str, str]

    @property
    def is_default(self) -> bool:
        return self.ms >= self.default_ms

    def stale(self, family: KernelFamily | None) -> str | None:
        """Why the entry no longer holds for its operator's family, else ``None``."""
        variant = variant_named(family, self.variant) if family is not None else None
        if variant is None:
            return f"{self.key.operator} has no variant {self.variant!r} any more"
        if set(self.values) != set(variant.space):
            return f"the tunables of {self.key.operator}'s {self.variant!r} have changed"
        for name, value in self.values.items():
            if value not in variant.space[name]:
                return f"{name}={value} is no value of {self.key.operator}'s {self.variant!r}"
        changed = [name for name, digest in self.sources.items() if source_digest(name) != digest]
        return f"{', '.join(changed)}.cl changed" if changed else None


@dataclass(frozen=True)
class TunedFile:
    """The tuned values of one device, one entry per key."""

    device: DeviceId
    entries: tuple[Entry, ...] = field(default=())

    def with_entries(self, new: Iterable[Entry]) -> TunedFile:
        """With ``new`` entries in the places of older ones of the same key."""
        kept = {entry.key: entry for entry in self.entries}
        for entry in new:
            if entry.key not in kept or entry.date >= kept[entry.key].date:
                kept[entry.key] = entry
        return TunedFile(self.device, tuple(kept.values()))

    def write(self, path: Path) -> None:
        """Write as JSON, atomically; one entry a line.

        Raises:
            SaveError: the file cannot be written.
        """
        ordered = sorted(self.entries, key=lambda e: (e.key.operator, e.key.kind, e.key.sizes))
        lines = ",\n".join("  " + json.dumps(_to_json(entry)) for entry in ordered)
        head = f'{{"format": {FORMAT},\n "device": {json.dumps(asdict(self.device))},\n'
        text = f'{head} "entries": [\n{lines}\n]}}\n'
        write_atomically(path, lambda file: file.write(text.encode()))


@functools.cache
def source_digest(name: str) -> str:
    """Digest of ``kernels/<name>.cl`` with what it includes; empty if there is no such file."""
    try:
        text = kernel_source(name)
    except OSError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def merge(paths: Sequence[Path]) -> TunedFile:
    """One file of several of the same device; of entries with one key, the latest stays.

    Raises:
        UsageError: a file cannot be read, or they are of different devices.
    """
    files = [read_tuned(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if file.device != files[0].device:
            raise UsageError(
                f"{paths[0]} is of {_device_text(files[0].device)}, {path} of "
                f"{_device_text(file.device)}: only files of one device can be merged"
            )
    merged = files[0]
    for file in files[1:]:
        merged = merged.with_entries(file.entries)
    return merged


def read_tuned(path: Path) -> TunedFile:
    """The file that :meth:`TunedFile.write` wrote.

    Raises:
        UsageError: unreadable, not JSON, of another format, or a key that is missing or of the
            wrong type; the message names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a file of tuned values: {error}") from error
    return parse_tuned(text, str(path))


def parse_tuned(text: str, name: str) -> TunedFile:
    """What a file called ``name`` says; errors as of :func:`read_tuned`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not a file of tuned values: {error}") from error
    record = _Record(document, "", name)
    version = record.integer("format")
    if version != FORMAT:
        raise UsageError(f"{name}: format is {version}; this coexec reads {FORMAT}")
    device = record.record("device")
    found = DeviceId(
        device.text("name"),
        device.text("vendor"),
        device.text("unit_kind"),
        device.integer("vector_bytes"),
        device.integer("compute_units"),
    )
    entries = [_Record(e, f"entries[{i}].", name) for i, e in enumerate(record.items("entries"))]
    return TunedFile(found, tuple(map(_entry, entries)))


def entries_text(levels: Sequence[Iterable[Entry]]) -> str:
    """Entries of several levels as a line of JSON."""
    return json.dumps([[_to_json(entry) for entry in entries] for entries in levels])


def parse_entries(text: str, name: str) -> list[tuple[Entry, ...]]:
    """What :func:`entries_text` wrote.

    Raises:
        UsageError: not such a text, or entries with keys that are missing or of the wrong type.
    """
    try:
        levels = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is no list of tuned values: {error}") from error
    if not isinstance(levels, list) or not all(isinstance(level, list) for level in levels):
        raise UsageError(f"{name} is no list of tuned values")
    return [tuple(_entry(_Record(each, "", name)) for each in level) for level in levels]


def _entry(record: _Record) -> Entry:
    sizes = record.items("sizes")
    values, sources = record.record("values"), record.record("sources")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise record.error("sizes", f"is {sizes!r}; a list of sizes is wanted")
    return Entry(
        key=CallKey(record.text("operator"), record.text("kind"), tuple(sizes)),
        variant=record.text("variant"),
        values={name: values.integer(name) for name in values.content},
        default_ms=record.number("default_ms"),
        ms=record.number("ms"),
        date=record.text("date"),
        sources={name: sources.text(name) for name in sources.content},
    )


class _Record:
    """A JSON object that knows its own name, for messages."""

    def __init__(self, content: Any, prefix: str, name: str) -> None:
        if not isinstance(content, dict):
            what = prefix.rstrip(".") or "the file"
            raise UsageError(f"{name}: {what} is not a JSON object")
        self.content: dict[str, Any] = content
        self.prefix = prefix
        self.name = name

    def error(self, key: str, complaint: str) -> UsageError:
        return UsageError(f"{self.name}: {self.prefix}{key} {complaint}")

    def text(self, key: str) -> str:
        return str(self._get(key, str, "a text"))

    def integer(self, key: str) -> int:
        return int(self._get(key, int, "an integer"))

    def number(self, key: str) -> float:
        value = float(self._get(key, (int, float), "a number"))
        if not isfinite(value) or value < 0:
            raise self.error(key, f"is {value:g}; it must be finite and at least 0")
        return value

    def items(self, key: str) -> list[Any]:
        found: list[Any] = self._get(key, list, "a list")
        return found

    def record(self, key: str) -> _Record:
        return _Record(self._get(key, dict, "an object"), f"{self.prefix}{key}.", self.name)

    def _get(self, key: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        if key not in self.content:
            raise self.error(key, "is missing")
        value = self.content[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(key, f"is {value!r}; {wanted} is wanted")
        return value


def _to_json(entry: Entry) -> dict[str, Any]:
    return {
        "operator": entry.key.operator,
        "kind": entry.key.kind,
        "sizes": list(entry.key.sizes),
        "variant": entry.variant,
        "values": dict(entry.values),
        "default_ms": float(f"{entry.default_ms:.{DIGITS}g}"),
        "ms": float(f"{entry.ms:.{DIGITS}g}"),
        "date": entry.date,
        "sources": dict(entry.sources),
    }


def _device_text(device: DeviceId) -> str:
    return f"{device.name!r} ({device.vendor}, {device.compute_units} compute units)"
