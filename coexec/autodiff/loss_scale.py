"""Dynamic loss scaling: small gradients survive float16, overflows are noticed and skipped.

Source: Micikevicius et al., "Mixed precision training", ICLR 2018 (arXiv 1710.03740), section 3.2;
growth as in PyTorch's ``GradScaler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.core.types import Array

LOSS_SCALE = "#loss_scale"
"""Name of the loss scale among the states of a training."""
FIRST, LEAST, MOST = 2.0**16, 1.0, 2.0**24
GROW_AFTER = 2000
"""Steps without an overflow until the scale doubles."""


@dataclass(frozen=True)
class LossScale:
    """The factor on the loss, the steps since it last changed, and overflows so far."""

    value: float = FIRST
    calm: int = 0
    overflows: int = 0

    def after(self, overflowed: bool) -> LossScale:
        """The scale of the next step."""
        return self._shrunk() if overflowed else self._grown()

    def _grown(self) -> LossScale:
        if self.calm + 1 < GROW_AFTER:
            return LossScale(self.value, self.calm + 1, self.overflows)
        return LossScale(min(2 * self.value, MOST), 0, self.overflows)

    def _shrunk(self) -> LossScale:
        """A step whose gradients overflowed changed nothing and is not repeated."""
        return LossScale(max(self.value / 2, LEAST), 0, self.overflows + 1)

    def to_array(self) -> Array:
        """As one tensor of a checkpoint."""
        return np.array([self.value, self.calm, self.overflows], np.float64)

    @classmethod
    def from_array(cls, array: Array) -> LossScale:
        """The inverse of :meth:`to_array`."""
        value, calm, overflows = array.tolist()
        return cls(float(value), int(calm), int(overflows))


def without_scale(state: Mapping[str, Array]) -> dict[str, Array]:
    """The states that programs have: all but the scale."""
    return {name: array for name, array in state.items() if name != LOSS_SCALE}
