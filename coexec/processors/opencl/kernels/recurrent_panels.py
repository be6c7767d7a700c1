"""How steps of recurrent layers are divided into panels and tiles: ``recurrent_panels.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coexec.core.types import OpCall
from coexec.ops.recurrent_geometry import Recurrence
from coexec.ops.recurrent_steps import StepsCall
from coexec.processors.opencl.family import Argument, DeviceFacts, KernelCall, i32

LEAST_LANES, MOST_LANES = 4, 16
WIDEST = 4
"""Vectors of a panel of the gradient at most."""
LEAST_SHARED = 1 << 14
"""Multiply-adds of a step for each member of a team: less takes no longer than to meet."""
TEAMS = (1, 2, 4, 8, 16)
"""Work-items that may divide the steps of a task."""
MOST_STEPS = 1 << 22
"""Calls of a team count steps in 23 bits."""
TEAM_WORDS, LINE = 2, 16
"""Numbers of a team besides one for each member, and how far apart they lie (team.cl)."""


def lanes_of(facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    return min(max(facts.vector_bytes // 4, LEAST_LANES), MOST_LANES)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """As many rows as registers hold (32 with vectors of 64 bytes, else 16); teams that pay."""
    r = StepsCall.of(call).geometry
    share = max(1, r.batch * r.directions // facts.compute_units)
    paying = max(1, share * r.gates * r.hidden**2 // LEAST_SHARED)
    team = max(size for size in TEAMS if size <= paying)
    return {"TEAM": team} | ({} if facts.vector_bytes >= 64 else {"ROWS": 2})


@dataclass(frozen=True)
class Tiling:
    """``share`` samples a task, ``rows`` of them at a time with panels of ``wide`` vectors.

    ``team`` work-items divide the panels of each step of a task, where units are to spare.
    """

    geometry: Recurrence
    gradient: bool
    lanes: int
    rows: int
    wide: int
    share: int
    team: int

    @classmethod
    def of(cls, s: StepsCall, facts: DeviceFacts, params: Mapping[str, int]) -> Tiling:
        """An even share for each compute unit, in tiles that waste the fewest rows."""
        r, lanes, most = s.geometry, lanes_of(facts), params["ROWS"]
        tasks = facts.compute_units * params["PER_UNIT"]
        share = max(1, -(-r.batch * r.directions // tasks))
        share = min(share, r.batch)
        rows = min(range(most, 0, -1), key=lambda tile: -(-share // tile) * tile)
        wide = min(WIDEST, -(-r.hidden // lanes)) if s.is_gradient else r.gates
        found = cls(r, s.is_gradient, lanes, rows, wide, share, 1)
        if s.is_gradient or r.steps > MOST_STEPS:
            return found
        spare = facts.compute_units // (r.directions * found.blocks)
        return replace(found, team=max(1, min(params["TEAM"], spare, found.panels)))

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

    @property
    def words(self) -> int:
        """Numbers by which teams meet; none where nobody does."""
        teams = self.geometry.directions * self.blocks
        return teams * (TEAM_WORDS + self.team) * LINE if self.team > 1 else 0

    def defines(self) -> dict[str, str | int | float]:
        sizes = {"W": self.lanes, "ROWS": self.rows, "WIDE": self.wide, "TEAM": self.team}
        return {**sizes, "BACK": int(self.gradient)}

    def pack(
        self,
        weights: Argument,
        panels: Argument,
        words: Argument,
        defines: Mapping[str, str | int | float],
    ) -> KernelCall:
        """Recurrent weights as panels, and ``words`` of teams that have not met yet."""
        r = self.geometry
        args = (weights, panels, words, *map(i32, (r.hidden, self.panels, self.words)))
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
