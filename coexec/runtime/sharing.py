"""Memory of the host that buffers of several processors lie over: tensors that nobody copies."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.base.pages import page_aligned
from coexec.core.processor import Runner
from coexec.core.program import Program
from coexec.core.types import Array


def common_memory(program: Program, runners: Mapping[str, Runner]) -> dict[str, Array]:
    """By buffer, the memory (bytes) of each group that shares some.

    Groups with a processor that does not compute on memory of the host are left out: a program from
    a file may meet another device than the one that it was made for. Their tensors are copied.
    """
    groups: dict[str, list[str]] = {}
    specs = {spec.name: spec for spec in program.buffers}
    for spec in program.buffers:
        if spec.shares:
            groups.setdefault(spec.shares, [spec.shares]).append(spec.name)
    memory: dict[str, Array] = {}
    for group in groups.values():
        if all(runners[specs[name].processor].host_memory for name in group):
            block = page_aligned(max(specs[name].nbytes for name in group))
            memory.update((name, block) for name in group)
    return memory
