"""Under which conditions a phone works: load, heat, memory and battery, by name.

All are assumptions in round numbers, made to be comparable, and not measurements of any phone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.base.errors import UsageError
from coexec.base.names import known_names


@dataclass(frozen=True)
class Load:
    """Other work that comes and goes on blocks of silicon, with exponentially distributed spells.

    While it is there it takes ``share`` of their time and ``gbps`` of the memory.
    """

    silicon: frozenset[str]
    share: float
    gbps: float
    mean_on_ms: float
    mean_off_ms: float


@dataclass(frozen=True)
class Condition:
    """What surrounds the work on a phone.

    ``start_above_ambient`` is the share of the way from ambient to throttling temperature at first,
    ``ambient_rise`` what the air is warmer (kelvin). ``memory_free`` is the share of the
    usable memory that other apps leave, ``speed_limit`` bounds all frequencies, ``governor`` is
    ``performance`` (top frequency) or ``schedutil`` (follows the load).
    """

    name: str
    meaning: str
    loads: tuple[Load, ...] = ()
    start_above_ambient: float = 0.0
    ambient_rise: float = 0.0
    memory_free: float = 0.75
    speed_limit: float = 1.0
    governor: str = "performance"


CPU = frozenset({"cpu.prime", "cpu.big", "cpu.little"})
GPU = frozenset({"gpu"})

CONDITIONS: Mapping[str, Condition] = {
    each.name: each
    for each in (
        Condition("idle", "nothing else runs, all clocks at their top"),
        Condition(
            "loaded",
            "other apps take CPU, GPU and memory bandwidth in spells",
            loads=(Load(CPU, 0.5, 4.0, 20.0, 20.0), Load(GPU, 0.4, 5.0, 6.0, 10.7)),
        ),
        Condition(
            "cpu-load", "another app takes half of the CPU", (Load(CPU, 0.5, 4.0, 20.0, 5.0),)
        ),
        Condition(
            "gpu-load", "display and a game take half the GPU", (Load(GPU, 0.5, 6.0, 9.0, 3.0),)
        ),
        Condition(
            "hot",
            "warm air, and the phone is where throttling begins",
            start_above_ambient=1.0,
            ambient_rise=10.0,
        ),
        Condition("low-memory", "other apps hold most of the memory", memory_free=0.15),
        Condition(
            "battery-saver",
            "frequencies bounded at 60 %, and they follow the load",
            speed_limit=0.6,
            governor="schedutil",
        ),
    )
}
IDLE = CONDITIONS["idle"]


def condition_named(name: str) -> Condition:
    """A condition by name.

    Raises:
        UsageError: it is unknown; the known ones are listed.
    """
    if name not in CONDITIONS:
        raise UsageError(f"condition {name!r} is unknown; {known_names(name, CONDITIONS)}")
    return CONDITIONS[name]
