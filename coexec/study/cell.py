"""A cell of a grid: one simulation, by the names of what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple


class Group(NamedTuple):
    """What cells have in common that share their plans."""

    model: str
    technique: str
    machine: str
    precision: str
    wait: str
    fusion: str


@dataclass(frozen=True)
class Cell:
    """Names of a model, what was done to it, a phone, an element type, and so on.

    ``technique`` is one of the frontend (or ``none``), ``wait`` how the host hears of a GPU's end,
    ``fusion`` whether elementwise operators join the kernel before them (``on``, ``off``),
    ``strategy`` a processor, a policy or ``adaptive``.
    """

    model: str
    technique: str
    machine: str
    precision: str
    wait: str
    fusion: str
    strategy: str
    workload: str
    condition: str

    @property
    def group(self) -> Group:
        return Group(
            *(self.model, self.technique, self.machine, self.precision, self.wait, self.fusion)
        )

    def names(self) -> dict[str, str]:
        """Values by axis."""
        return {axis: getattr(self, axis) for axis in AXES}


AXES = tuple(each.name for each in fields(Cell))
