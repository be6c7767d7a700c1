"""How steps of recurrent layers are divided into panels and tiles: ``recurrent_panels.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.core.types import OpCall
from coexec.ops.recurrent_geometry import Recurrence
from coexec.ops.recurrent_steps import StepsCall
from coexec.processors.opencl.family import Argument, DeviceFacts, KernelCall, i32

LEAST_LANES, MOST_LANES = 4, 16
WIDEST = 4
"""Vectors of a panel of the gradient at most."""


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // 4, LEAST_LANES), MOST_LANES)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """As many rows as registers hold: 32 with vectors of 64 bytes, else 16."""
    return {} if facts.vector_bytes >= 64 else {"ROWS": 2}


@dataclass(frozen=True)
class Tiling:
    """``share`` samples a task, ``rows`` of them at a time with panels of ``wide`` vectors."""

    geometry: Recurrence
    gradient: bool
    lanes: int
    rows: int
    wide: int
    share: int

    @classmethod
    def of(cls, s: StepsCall, facts: DeviceFacts, most: int, per_unit: int) -> Tiling:
        """An even share for each compute unit, in tiles that waste the fewest rows."""
        r, lanes = s.geometry, lanes_of(facts)
        tasks = facts.compute_units * per_unit
        share = max(1, -(-r.batch * r.directions // tasks))
        share = min(share, r.batch)
        rows = min(range(most, 0, -1), key=lambda tile: -(-share // tile) * tile)
        wide = min(WIDEST, -(-r.hidden // lanes)) if s.is_gradient else r.gates
        return cls(r, s.is_gradient, lanes, rows, wide, share)

    @property
    def blocks(self) -> int:
        """Tasks of a direction."""
        return -(-self.geometry.batch // self.share)

    @property
    def panels(self) -> int:
        """Panels of a direction: of units with all their gates, or of columns."""
        width = self.lanes * (self.wide if self.gradient else 1)
        return -(-self.geometry.hidden // width)

    @property
    def depth(self) -> int:
        """Rows of a panel."""
        r = self.geometry
        return r.gates * r.hidden if self.gradient else r.hidden

    @property
    def panel_bytes(self) -> int:
        r = self.geometry
        return 4 * r.directions * self.panels * self.depth * self.wide * self.lanes

    def defines(self) -> dict[str, str | int | float]:
        return {"W": self.lanes, "ROWS": self.rows, "WIDE": self.wide, "BACK": int(self.gradient)}

    def pack(
        self, weights: Argument, panels: Argument, defines: Mapping[str, str | int | float]
    ) -> KernelCall:
        """Recurrent weights as panels."""
        r = self.geometry
        args = (weights, panels, i32(r.hidden), i32(self.panels))
        grid = (r.directions * self.panels,)
        return KernelCall(
            "recurrent_panels",
            "pack_panels",
            args,
            grid,
            (1,),
            defines,
            layout=True,
            prepares=True,
        )
