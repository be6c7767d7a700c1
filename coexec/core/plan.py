"""A plan: which processor executes which node, and why not another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A processor that would have been preferred does not execute a node."""

    node: str
    operator: str
    processor: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Processor of each node by node name, with the refusals that led there.

    ``order`` is that in which nodes take their processors (empty: the graph's), ``policy`` what
    made the plan, ``predicted_us`` the makespan that it predicted.
    """

    processors: Mapping[str, str]
    refusals: tuple[Refusal, ...] = ()
    order: tuple[str, ...] = ()
    policy: str = ""
    predicted_us: float | None = None

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
