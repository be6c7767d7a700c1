"""Rows of measurements that nothing is predicted for: counted, and named with the reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

NO_CHIP = "no machine file of the chip"
NO_LAYERS = "layers of the network are not known"
NO_TIME = "no time"
NO_PROCESSOR = "no such processor is predicted"
NO_ELEMENT = "no such element type is predicted"
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class LeftOut:
    """A line of a file; ``name`` is what is not known, if it has a name."""

    file: str
    line: int
    reason: str
    name: str = ""


@dataclass(frozen=True)
class Reason:
    """Lines of a file that are left out for the same reason; ``names`` with their lines' number."""

    file: str
    reason: str
    rows: int
    first_line: int
    names: Mapping[str, int]

    def note(self) -> str:
        """In words, the most frequent names first."""
        names = sorted(self.names.items(), key=lambda each: (-each[1], each[0]))
        listed = ", ".join(f"{name} {count}" for name, count in names)
        return (
            f"not predicted, {self.reason} (from line {self.first_line}){listed and ': '}{listed}"
        )


def reasons(rows: Iterable[LeftOut]) -> list[Reason]:
    """Lines by file and reason, in the order in which they come."""
    groups: dict[tuple[str, str], list[LeftOut]] = defaultdict(list)
    for row in rows:
        groups[row.file, row.reason].append(row)
    return [
        Reason(
            file,
            reason,
            len(members),
            min(row.line for row in members),
            dict(Counter(row.name for row in members if row.name)),
        )
        for (file, reason), members in groups.items()
    ]


def divided(found: Iterable[Kept | LeftOut]) -> tuple[list[Kept], list[LeftOut]]:
    """What is used and what is not, each in order."""
    every: Sequence[Kept | LeftOut] = list(found)
    kept = [each for each in every if not isinstance(each, LeftOut)]
    return kept, [each for each in every if isinstance(each, LeftOut)]
