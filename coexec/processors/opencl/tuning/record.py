"""What one tuning run keeps: the user's file of the device, written after every call."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coexec.base.errors import SaveError, UsageError
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.tuning.key import CallKey
from coexec.processors.opencl.tuning.lookup import TunedChooser, stale_entries, tuned_path
from coexec.processors.opencl.tuning.store import DeviceId, Entry, TunedFile, read_tuned

log = logging.getLogger(__name__)


@dataclass
class Record:
    """The file in the user's cache with this run's entries in it, and a copy of those alone.

    ``chooser`` finds what is known so far, ``stale`` counts old entries that no longer held,
    by reason.
    """

    path: Path
    file: TunedFile
    save: Path | None
    stale: Mapping[str, int] = field(default_factory=dict)
    mine: list[Entry] = field(default_factory=list)

    @classmethod
    def open(cls, facts: DeviceFacts, save: Path | None) -> Record:
        """Continue the device's file; one that cannot be read is reported and replaced."""
        path, empty = tuned_path(facts), TunedFile(DeviceId.of(facts))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"cannot make {path.parent}: {error.strerror or error}") from error
        if not path.exists():
            return cls(path, empty, save)
        try:
            file = read_tuned(path)
        except UsageError as error:
            log.warning("starting anew: %s", error)
            return cls(path, empty, save)
        stale = stale_entries(file.entries)
        current = tuple(entry for entry in file.entries if entry.key not in stale)
        return cls(path, TunedFile(file.device, current), save, Counter(stale.values()))

    @property
    def chooser(self) -> TunedChooser:
        return TunedChooser((self.file.entries,))

    @property
    def dates(self) -> Mapping[CallKey, str]:
        """When calls were tuned."""
        return {entry.key: entry.date for entry in self.file.entries}

    @property
    def written(self) -> tuple[Path, ...]:
        """Files that hold what was found, if anything was."""
        if not self.mine:
            return ()
        return (self.path,) if self.save is None else (self.path, self.save)

    def add(self, entry: Entry) -> None:
        """Keep an entry on disk.

        Raises:
            SaveError: a file cannot be written.
        """
        self.mine.append(entry)
        self.file = self.file.with_entries([entry])
        self.file.write(self.path)
        if self.save is not None:
            TunedFile(self.file.device, tuple(self.mine)).write(self.save)
