"""Which variant of a family computes a call, and with which values of its tunables.

A :data:`Chooser` decides; the compiler asks it once for every node. The defaults decide where
nothing was tuned (``tuning/lookup.py``) and nobody forces a variant (tests, ``?kernels=naive``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from coexec.core.types import OpCall
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant


@dataclass(frozen=True)
class Choice:
    """A variant with a value for each of its tunables."""

    variant: Variant
    values: Mapping[str, int]

    def __str__(self) -> str:
        """``packed DEPTH=512 MR=8``: what traces and tables say, and what tells choices apart."""
        return " ".join(
            (self.variant.name, *(f"{n}={self.values[n]}" for n in sorted(self.values)))
        )

    def lower(self, call: OpCall, facts: DeviceFacts) -> Lowering:
        """The kernels of ``call``, which bear the name of this choice."""
        return replace(self.variant.lower(call, facts, self.values), choice=str(self))


Chooser = Callable[[KernelFamily, OpCall, DeviceFacts], Choice]


def by_default(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
    """The first variant that applies, with its defaults.

    Raises:
        ValueError: no variant applies; the message is the naive variant's reason.
    """
    variant, reason = family.choose(call, facts)
    if variant is None:
        raise ValueError(f"{call.identifier}: {reason}")
    return Choice(variant, variant.defaults(call, facts))


def named(name: str) -> Chooser:
    """The variant of that name, with its defaults.

    Raises (when asked):
        ValueError: the family has no such variant, or it does not apply.
    """

    def choose(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        variant = variant_named(family, name)
        if variant is None:
            raise ValueError(f"{call.identifier}: no variant {name!r}")
        reason = variant.applies(call, facts)
        if reason:
            raise ValueError(f"{call.identifier}: {reason}")
        return Choice(variant, variant.defaults(call, facts))

    return choose


def always(choice: Choice) -> Chooser:
    """The same choice for every call: a region of one node that is being tried out."""
    return lambda _family, _call, _facts: choice


def sparing(usual: Chooser, most: int) -> Chooser:
    """As ``usual``, but in ``most`` bytes of working memory where the variant can do with less.

    The first of its values that fit are taken; if none do, those that take least.
    """

    def choose(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        first = usual(family, call, facts)
        less = (Choice(first.variant, {**first.values, **v}) for v in first.variant.spares)
        taken: dict[int, Choice] = {}
        for choice in (first, *less):
            nbytes = sum(choice.lower(call, facts).scratch)
            if nbytes <= most:
                return choice
            taken.setdefault(nbytes, choice)
        return taken[min(taken)]

    return choose


def variant_named(family: KernelFamily, name: str) -> Variant | None:
    """The variant of a family by name."""
    return next((variant for variant in family.variants if variant.name == name), None)
