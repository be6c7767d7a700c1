"""How a program treats memory and time between operators: choices that cost or save a great deal.

The defaults are what one wants. The others are how many engines work, and what one needs to see why
a GPU is slow: where the time goes changes with each choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from coexec.base.errors import UsageError
from coexec.base.names import known_names

Residency = Literal["device", "host"]
Synchronise = Literal["step", "operator"]


@dataclass(frozen=True)
class ExecutionMode:
    """Residency of tensors and frequency of synchronisation.

    ``residency``: tensors stay on the device, or go through the host after every operator
    (parameters and optimizer state stay). ``synchronise``: the host waits once a step, or after
    every operator.
    """

    residency: Residency = "device"
    synchronise: Synchronise = "step"

    def __post_init__(self) -> None:
        _require("residency", self.residency, get_args(Residency))
        _require("synchronise", self.synchronise, get_args(Synchronise))

    @property
    def by_operator(self) -> bool:
        """Whether every operator is launched on its own."""
        return self.residency == "host" or self.synchronise == "operator"


def _require(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} {value!r} is unknown; {known_names(value, known)}")


DEFAULT = ExecutionMode()
