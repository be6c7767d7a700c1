"""How steps of recurrent layers are divided among work-groups of GPUs: ``recurrent_groups.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.recurrent_steps import StepsCall
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.family import Argument, DeviceFacts, KernelCall, ceil_to

SPACE: Mapping[str, tuple[int, ...]] = {
    "ROWS": (4, 2, 1, 8),
    "LOCAL": (256, 128, 64),
    "STAGED": (1, 0),
}
"""Samples and items of a group; whether what it shares lies in local memory, if that holds it."""
MOST_ROWS, LEAST_ITEMS = 4, 32
QUARTER, TURN_ITEMS = 4, 64
"""Elements of a row that an item turns (QUARTER in the kernel), and items of a group that does."""


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """As many samples a group as leave one for each compute unit; fewer where memory is short."""
    s = StepsCall.of(call)
    share = s.geometry.batch * s.geometry.directions // facts.compute_units
    rows = min(MOST_ROWS, power_of_two(max(1, share) + 1) // 2)
    while rows > 1 and Groups(s, rows, 1, facts.on_chip).shared_bytes > facts.local_bytes:
        rows //= 2
    return {"ROWS": rows, "STAGED": int(facts.on_chip)}


@dataclass(frozen=True)
class Groups:
    """``rows`` samples of a direction for each work-group of ``items``."""

    s: StepsCall
    rows: int
    items: int
    staged: bool

    @classmethod
    def of(cls, s: StepsCall, facts: DeviceFacts, params: Mapping[str, int]) -> Groups:
        """No more items than a step has gates of units; local memory only where it suffices."""
        r = s.geometry
        most = min(params["LOCAL"], facts.max_work_group_size)
        items = max(min(LEAST_ITEMS, most), min(most, power_of_two(r.gates * r.hidden)))
        found = cls(s, params["ROWS"], items, bool(params["STAGED"]))
        return cls(s, found.rows, items, found.staged and found.shared_bytes <= facts.local_bytes)

    @property
    def count(self) -> int:
        """Work-groups."""
        return self.s.geometry.directions * -(-self.s.geometry.batch // self.rows)

    @property
    def numbers(self) -> int:
        """What a group shares: states and their products; backwards, flows and their products."""
        r = self.s.geometry
        lines = 2 * r.gates if self.s.is_gradient else r.gates + 1
        return lines * r.hidden * self.rows

    @property
    def shared_bytes(self) -> int:
        """Of one group."""
        return self.numbers * (8 if self.s.call.input(0).dtype == np.float64 else 4)

    def defines(self) -> dict[str, str | int | float]:
        return {
            "UNITS": self.s.geometry.hidden,
            "ROWS": self.rows,
            "LOCAL": self.items,
            "STAGED": int(self.staged),
            "NUMBERS": self.numbers,
        }

    def turn(
        self, weights: Argument, turned: Argument, defines: Mapping[str, str | int | float]
    ) -> KernelCall:
        """Recurrent weights with neighbouring rows side by side."""
        r = self.s.geometry
        lines, quarters = ceil_to(r.gates * r.hidden, TURN_ITEMS), -(-r.hidden // QUARTER)
        return KernelCall(
            "recurrent_groups",
            "turn",
            (weights, turned),
            (lines, r.directions * quarters),
            (TURN_ITEMS, 1),
            defines,
            layout=True,
            prepares=True,
        )
