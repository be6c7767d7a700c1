"""What a run of results reads along one axis: affine windows, clipped to what is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Reads along ``axis``, which has ``extent`` elements.

    Result ``i`` reads ``reach`` elements from ``i * step - before`` on; those outside are padding.
    """

    axis: int
    extent: int
    step: int = 1
    before: int = 0
    reach: int = 1

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """First and last (exclusive) element that results ``start`` to ``stop`` read."""
        first, last = self._unclipped(start, stop)
        return max(first, 0), min(last, self.extent)

    def padding(self, start: int, stop: int) -> tuple[int, int]:
        """Padding in front of and behind :meth:`span` that the same results read."""
        first, last = self._unclipped(start, stop)
        return max(-first, 0), max(last - self.extent, 0)

    def _unclipped(self, start: int, stop: int) -> tuple[int, int]:
        return start * self.step - self.before, (stop - 1) * self.step - self.before + self.reach
