"""How reports name nodes, times and shares."""

from __future__ import annotations

import re
from typing import Protocol

SIMULATED = re.compile(r"\bsim:(?P<name>[\w.+-]+/[\w:+]+)(?:\?(?P<options>[\w=&.+-]*\w))?")
"""Names of simulated processors, as they are asked for."""

ROLES = {
    "ConvWeightGrad": "weight gradient",
    "ConvInputGrad": "input gradient",
}


class Named(Protocol):
    """An event or a point of the roofline plot."""

    @property
    def name(self) -> str: ...

    @property
    def operator(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def phase(self) -> str: ...


def node_phrase(node: Named) -> str:
    """``Conv_12``, ``Conv_12's weight gradient``, ``Adam of Conv_12``."""
    operator = node.operator.rpartition("::")[2].partition(".")[0]
    layer = node.source or node.name
    if node.phase in ("backward", "optimizer"):
        if operator in ROLES:
            return f"{layer}'s {ROLES[operator]}"
        return f"{operator} ({node.phase}) of {layer}"
    return layer if layer == node.name else f"{layer} ({operator})"


def without_specifications(text: str) -> str:
    """Simulated processors as people call them.

    ``snapdragon-865/gpu`` for ``sim:snapdragon-865/gpu?numerics=none``; options that change times
    stand in brackets.
    """

    def name(found: re.Match[str]) -> str:
        options = [each for each in (found["options"] or "").split("&") if each]
        told = ", ".join(each for each in options if not each.startswith("numerics="))
        return f"{found['name']} ({told})" if told else found["name"]

    return SIMULATED.sub(name, text)


def counted(number: int, noun: str) -> str:
    """``1 kernel``, ``2 kernels``, ``2 copies``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def percent(share: float) -> str:
    """``0.781`` -> ``78 %``."""
    return f"{share * 100:.1f} %" if 0 < share < 0.0995 else f"{share * 100:.0f} %"


def milliseconds(nanoseconds: float) -> str:
    """``1234567`` -> ``1.23 ms``."""
    ms = nanoseconds / 1e6
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
