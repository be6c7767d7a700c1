"""Options of ``sim:<soc>/<processor>``, as ``sim:snapdragon-865/gpu?engine=stock-mnn-opencl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from coexec.base.errors import ProcessorError
from coexec.base.names import known_names
from coexec.cost.soc.engine_profile import COEXEC
from coexec.cost.soc.estimate import ENGINES
from coexec.simulation.condition import CONDITIONS

REFERENCE, NONE = "reference", "none"
FINISH, FLAG = "finish", "flag"
OWN, STEP = "own", "step"
ON, OFF = "on", "off"
CHOICES: Mapping[str, tuple[str, ...]] = {
    "engine": ENGINES,
    "precision": ("float32", "float16", "int8"),
    "numerics": (REFERENCE, NONE),
    "condition": tuple(CONDITIONS),
    "wait": (FINISH, FLAG),
    "queue": (OWN, STEP),
    "fusion": (ON, OFF),
}


@dataclass(frozen=True)
class SimulatedOptions:
    """How to simulate.

    ``engine`` is whose kernels, ``precision`` computes in another element type than the model says
    (time only). ``numerics``: results by the references of the operators, or none, all zeros.
    ``wait``: the host hears of a GPU's end by its driver, or looks at a flag in shared memory.
    ``queue``: a GPU gets work as its engine does it (the stock one waits for every layer), or all
    kernels of a launch before the host waits. ``fusion``: elementwise operators run in the kernel
    before them (if the engine does that), or all operators as kernels of their own.
    Processors of one phone share a simulation if ``condition`` and ``seed`` are the same.
    """

    engine: str = COEXEC
    precision: str = ""
    numerics: str = REFERENCE
    condition: str = "idle"
    wait: str = FINISH
    queue: str = OWN
    fusion: str = ON
    seed: int = 0

    def __str__(self) -> str:
        """What differs from the defaults, as it stands in a specification."""
        chosen = [
            f"{each.name}={getattr(self, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return f"?{'&'.join(chosen)}" if chosen else ""


def parse_options(spec: str, options: Mapping[str, str]) -> SimulatedOptions:
    """Options by name.

    Raises:
        ProcessorError: an unknown option or value; the known ones are listed.
    """
    values: dict[str, str | int] = {}
    for name, text in options.items():
        if name == "seed":
            values[name] = _seed(spec, text)
        elif name not in CHOICES:
            known = known_names(name, (*CHOICES, "seed"))
            raise ProcessorError(f"processor {spec!r} has no option {name!r}; {known}")
        elif text not in CHOICES[name]:
            known = known_names(text, CHOICES[name])
            raise ProcessorError(f"processor {spec!r}: {name}={text} is unknown; {known}")
        else:
            values[name] = text
    return SimulatedOptions(**values)  # type: ignore[arg-type]  # seed alone is a number


def _seed(spec: str, text: str) -> int:
    if not text.isdecimal():
        raise ProcessorError(f"processor {spec!r}: seed={text} is no whole number from 0")
    return int(text)
