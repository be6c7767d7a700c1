"""A plan: which processor executes which node or which share of it, and why not another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

ALONE = "#alone"
"""Behind the name of an activation that is made again: what leads to it is repeated for it only."""


def split_alone(names: Collection[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of activations that are made again, and which of them are marked :data:`ALONE`."""
    bare = tuple(name.removesuffix(ALONE) for name in names)
    return bare, frozenset(name.removesuffix(ALONE) for name in names if name.endswith(ALONE))


@dataclass(frozen=True)
class Refusal:
    """A processor that would have been preferred does not execute a node."""

    node: str
    operator: str
    processor: str
    reason: str


@dataclass(frozen=True)
class Split:
    """A node divided among processors: so many elements of ``axis`` of its result on each.

    ``sizes`` stand in the order in which the shares lie along the axis. Each share also computes
    the ``overlap`` next elements of its neighbours (before its own, behind them), which then need
    not come from there.
    """

    axis: int
    sizes: Mapping[str, int]
    overlap: tuple[int, int] = (0, 0)

    @property
    def shares(self) -> Iterator[tuple[str, int, int]]:
        """Processor, first element and the one behind the last of each share."""
        start = 0
        for processor, size in self.sizes.items():
            yield processor, start, start + size
            start += size


@dataclass(frozen=True)
class Plan:
    """Processor of each node by node name, with the refusals that led there.

    Nodes of ``splits`` are divided; ``processors`` names the one with the largest share of them.

    ``batch`` divides the batch among processors: so many samples on each (empty: it is whole);
    ``processors`` then says where nodes run that stay whole.

    ``recompute`` names activations that are made again for the backward pass (some maybe with
    :data:`ALONE` behind); the nodes that do so are among those of ``processors``. ``early``: large
    states of a training step are replaced while its backward pass goes on.

    ``order`` is that in which nodes take their processors (empty: the graph's), ``policy`` what
    made the plan, ``predicted_us`` the makespan that it predicted.
    """

    processors: Mapping[str, str]
    refusals: tuple[Refusal, ...] = ()
    order: tuple[str, ...] = ()
    policy: str = ""
    predicted_us: float | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)
    batch: Mapping[str, int] = field(default_factory=dict)
    recompute: tuple[str, ...] = ()
    early: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """All processors that have a part, in order of first use."""
        shared = (name for split in self.splits.values() for name in split.sizes)
        return tuple(dict.fromkeys((*self.processors.values(), *shared, *self.batch)))

    def table(self) -> str:
        """Refusals as text, one line per operator and reason; empty if there is none."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for r in self.refusals:
            groups.setdefault((r.processor, r.operator, r.reason), []).append(r.node)
        return "\n".join(
            f"{operator} x{len(nodes)} not on {processor}: {reason} ({', '.join(nodes[:3])}"
            f"{', ...' if len(nodes) > 3 else ''})"
            for (processor, operator, reason), nodes in sorted(groups.items())
        )
