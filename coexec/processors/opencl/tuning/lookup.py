"""From tuned values on disk to the choice for a call: this device's, its kin's, the default's."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.base.knobs import cache_dir
from coexec.core.types import OpCall
from coexec.processors.opencl.choose import Choice, by_default, variant_named
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.tuning.key import CallKey, key_of
from coexec.processors.opencl.tuning.store import (
    DeviceId,
    Entry,
    TunedFile,
    entries_text,
    parse_entries,
    parse_tuned,
    read_tuned,
)

NEAR = 1.0
"""Largest distance of a tuned call whose values are taken for another one: one size doubled."""

PACKAGED = "tuned"
"""Folder beside this package with the values that coexec brings along (it may be absent)."""

log = logging.getLogger(__name__)


class TunedChooser:
    """Chooses what was tuned for a call or one close to it, else the default.

    ``levels`` are looked through in order; within one an exact match comes before the nearest.
    Equally near entries are told apart by their sizes: the choice depends on the entries alone.
    """

    def __init__(self, levels: Sequence[Iterable[Entry]]) -> None:
        self._entries = [tuple(entries) for entries in levels]
        self._levels = [_by_kind(entries) for entries in self._entries]
        self._refused: set[str] = set()

    def __call__(self, family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        return self.tuned(family, call, facts) or by_default(family, call, facts)

    @property
    def text(self) -> str:
        """All entries, as :func:`chooser_of_text` reads them; empty if there are none."""
        return entries_text(self._entries) if any(self._entries) else ""

    def tuned(self, family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice | None:
        """The tuned choice, or ``None`` where the default stands."""
        if not any(self._levels):
            return None
        key = key_of(call)
        for level in self._levels:
            near = [(key.distance(e.key), e.key.sizes, e) for e in level[key.operator, key.kind]]
            for distance, _, entry in sorted(near, key=lambda item: item[:2]):
                if distance > NEAR:
                    break
                if entry.is_default:
                    return None
                choice, refusal = _usable(entry, family, call, facts)
                if choice is not None:
                    return choice
                if distance == 0:
                    self._say(f"the tuned value of {key.text} is ignored: {refusal}")
        return None

    def _say(self, message: str) -> None:
        """Warn, once: a call may occur in many places."""
        if message not in self._refused:
            self._refused.add(message)
            log.warning("%s", message)


def _by_kind(entries: Iterable[Entry]) -> defaultdict[tuple[str, str], list[Entry]]:
    found: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.key.operator, entry.key.kind].append(entry)
    return found


def _usable(
    entry: Entry, family: KernelFamily, call: OpCall, facts: DeviceFacts
) -> tuple[Choice | None, str]:
    """The entry's choice, or the reason why its variant does not take this very call."""
    variant = variant_named(family, entry.variant)
    refusal = entry.stale(family)
    if variant is None or refusal is not None:
        return None, refusal or ""
    refusal = variant.applies(call, facts)
    if refusal is not None:
        return None, f"{entry.variant}: {refusal}"
    return Choice(variant, dict(entry.values)), ""


def tuned_path(facts: DeviceFacts) -> Path:
    """The user's file of tuned values of a device (it may not exist yet)."""
    identity = "\n".join(map(str, asdict(DeviceId.of(facts)).values()))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    stem = re.sub(r"[^a-z0-9]+", "-", facts.name.lower()).strip("-")
    return cache_dir() / "tuned" / f"{stem}-{digest}.json"


def load_tuned(facts: DeviceFacts) -> TunedChooser:
    """The chooser of a device: the user's file, then what the package has for it and its kin.

    A file that cannot be read, and entries whose kernels have changed, are reported and ignored.
    """
    device = DeviceId.of(facts)
    own: list[Entry] = []
    kin: list[Entry] = []
    path = tuned_path(facts)
    readers = _packaged()
    if path.exists():
        readers.insert(0, (str(path), partial(read_tuned, path)))
    for name, read in readers:
        try:
            file = read()
        except UsageError as error:
            log.warning("tuned values are not used: %s", error)
            continue
        if file.device == device:
            own += _current(file.entries, name)
        elif file.device.is_kin(device):
            kin += _current(file.entries, name)
    return TunedChooser((own, kin))


def chooser_of_text(text: str, name: str) -> TunedChooser:
    """The chooser that :attr:`TunedChooser.text` is of; entries that hold no more are reported.

    Raises:
        UsageError: it is none; the message names ``name``.
    """
    levels = parse_entries(text, f"what {name} chooses by")
    return TunedChooser([_current(entries, f"{name}, as it was tuned then") for entries in levels])


def package_folder() -> Traversable:
    """Where coexec's own files of tuned values are, if there are any."""
    return resources.files("coexec.processors.opencl") / PACKAGED


def _packaged() -> list[tuple[str, Callable[[], TunedFile]]]:
    """Names and readers of the package's files, in the order of their names."""
    folder = package_folder()
    files = folder.iterdir() if folder.is_dir() else ()
    texts = {f"{PACKAGED}/{f.name}": f.read_text() for f in files if f.name.endswith(".json")}
    return [(name, partial(parse_tuned, texts[name], name)) for name in sorted(texts)]


def _current(entries: Sequence[Entry], name: str) -> tuple[Entry, ...]:
    """The entries that still hold; the others are reported."""
    stale = stale_entries(entries)
    if stale:
        log.warning(
            "%s: %d of %d tuned values are ignored (%s); run coexec tune again",
            *(name, len(stale), len(entries), "; ".join(counted(stale.values()))),
        )
    return tuple(entry for entry in entries if entry.key not in stale)


def counted(reasons: Iterable[str]) -> list[str]:
    """Each reason once, the most frequent first, with how often it occurs if that is not once."""
    return [
        f"{number} times {reason}" if number > 1 else reason
        for reason, number in Counter(reasons).most_common()
    ]


def stale_entries(entries: Iterable[Entry]) -> dict[CallKey, str]:
    """Entries that no longer hold, with the reason."""
    reasons = {entry.key: entry.stale(KERNELS.get(entry.key.operator)) for entry in entries}
    return {key: reason for key, reason in reasons.items() if reason is not None}
