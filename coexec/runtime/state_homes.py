"""Where states live between runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coexec.runtime.partition import Part


def state_homes(
    parts: Sequence[Part],
    states: Collection[str],
    replaced: Mapping[str, str],
    fixed: Mapping[str, str],
    other: str,
) -> dict[str, str]:
    """Processor of each state: where it is written, else where it is first read, else ``other``.

    ``replaced`` maps outputs to the states that they replace; ``fixed`` homes are kept.
    """
    homes = dict(fixed)
    for part in reversed(parts):
        for node in part.nodes:
            for value in node.inputs:
                name = str(value.name) if value is not None else ""
                if name in states and name not in fixed:
                    homes[name] = part.processor
    for part in parts:
        for node in part.nodes:
            for value in node.outputs:
                old = replaced.get(str(value.name))
                if old is not None and old not in fixed:
                    homes[old] = part.processor
    for name in states:
        homes.setdefault(name, other)
    return homes
