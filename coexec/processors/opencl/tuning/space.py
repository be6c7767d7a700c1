"""The space of a call: every variant that applies, with every value of its tunables."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from coexec.core.types import OpCall
from coexec.processors.opencl.choose import Choice, by_default
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Variant


@dataclass(frozen=True)
class Space:
    """Choices for one call. ``heads`` are where a search starts, the default first."""

    heads: tuple[Choice, ...]

    @classmethod
    def of(
        cls,
        family: KernelFamily,
        call: OpCall,
        facts: DeviceFacts,
        known: Sequence[Choice] = (),
        without: str = "",
    ) -> Space:
        """All variants that apply but the one called ``without`` (unless it is the default).

        ``known`` are choices to start from too, such as an earlier search's result.
        """
        default = by_default(family, call, facts)
        heads = {str(choice): choice for choice in (default, *known)}
        for variant in family.variants:
            if variant.name != without and variant.applies(call, facts) is None:
                choice = Choice(variant, variant.defaults(call, facts))
                heads.setdefault(str(choice), choice)
        return cls(tuple(heads.values()))

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple({choice.variant.name: choice.variant for choice in self.heads}.values())

    @property
    def size(self) -> int:
        """How many choices the declared values make."""
        return sum(map(_count, self.variants))

    def neighbours(self, choice: Choice) -> Iterator[Choice]:
        """Coordinate steps: one tunable moved to the next lower or higher declared value."""
        for name, declared in choice.variant.space.items():
            values = sorted({*declared, choice.values[name]})
            at = values.index(choice.values[name])
            for step in (at - 1, at + 1):
                if 0 <= step < len(values):
                    yield Choice(choice.variant, {**choice.values, name: values[step]})

    def draw(self, dice: random.Random) -> Choice:
        """A random one of all declared choices."""
        (variant,) = dice.choices(self.variants, list(map(_count, self.variants)))
        return Choice(variant, {name: dice.choice(v) for name, v in variant.space.items()})


def _count(variant: Variant) -> int:
    """How many choices a variant declares."""
    return prod(map(len, variant.space.values()))
