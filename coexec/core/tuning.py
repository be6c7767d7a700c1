"""Tuning a processor's kernels: what a tuner offers and reports, free of any processor's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coexec.core.processor import Processor


@dataclass(frozen=True)
class TunedCall:
    """What tuning made of one operator call that occurs ``count`` times in a step.

    ``default`` and ``chosen`` name kernel variants with their values, ``refused`` counts the
    candidates that were no candidates by reason. ``note`` says why a call was not tuned; its
    times are then equal (0 where it was not even measured).
    """

    operator: str
    kind: str
    sizes: tuple[int, ...]
    count: int
    default: str
    chosen: str
    default_ms: float
    ms: float
    tried: int = 0
    cut: int = 0
    refused: Mapping[str, int] | None = None
    checked: str = ""
    note: str = ""

    @property
    def gain_ms(self) -> float:
        """Milliseconds of a step that the chosen values save."""
        return self.count * (self.default_ms - self.ms)


@dataclass(frozen=True)
class TuneReport:
    """All calls, those that save most first; ``stale`` counts older entries dropped, by reason."""

    processor: str
    device: str
    seconds: float
    calls: tuple[TunedCall, ...]
    files: tuple[Path, ...]
    stale: Mapping[str, int]
    interrupted: bool

    @property
    def default_ms(self) -> float:
        """Kernel time of a step with default values, as far as it was measured."""
        return sum(call.count * call.default_ms for call in self.calls)

    @property
    def ms(self) -> float:
        """The same with the chosen values: a prediction."""
        return sum(call.count * call.ms for call in self.calls)


Observer = Callable[[float, str], None]
"""Hears of the seconds that have passed and of what is being done."""


class Tuner(Protocol):
    """Tunes one device. ``processor`` is there to compile models with: their calls are noted."""

    @property
    def processor(self) -> Processor: ...

    def add_representative(self, batch_sizes: tuple[int, ...]) -> None:
        """Note typical products and convolutions instead of a model's calls."""

    def tune(self, seconds: float, observe: Observer, save: Path | None) -> TuneReport:
        """Search for ``seconds``; what is found goes to the user's cache, and to ``save``.

        Ctrl-C ends the search: the report says so, and nothing that was found is lost.

        Raises:
            SaveError: a file cannot be written.
        """


class TunerModule(Protocol):
    """What the module of a processor whose kernels have tunables offers."""

    def open_tuner(self, name: str, options: Mapping[str, str]) -> Tuner: ...

    def merge_tuned(self, paths: list[Path], out: Path) -> int:
        """Merge files of tuned values into one; the number of its entries."""
