"""Memory of the host that buffers of several processors lie over: tensors that nobody copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coexec.base.pages import page_aligned
from coexec.core.processor import Buffer, Runner
from coexec.core.program import INPUT, SCRATCH, STATE, BufferSpec, Program, Write
from coexec.core.types import Array

LARGEST = 1 << 20
"""Bytes of an input that the host copies by itself; drivers copy larger ones beside it."""


def input_memory(program: Program, runners: Mapping[str, Runner]) -> dict[str, Array]:
    """By buffer, memory (bytes) below small inputs of programs on several processors.

    The host copies inputs there before processors are given work. As commands, copies wake them,
    on cores that the host's thread is to give the next ones their work on.
    """
    if len(program.processors) < 2:
        return {}
    writes = (step for step in program.instructions if isinstance(step, Write))
    fed = {step.buffer for step in writes if step.tensor in program.inputs}
    return {
        spec.name: page_aligned(spec.nbytes)
        for spec in program.buffers
        if spec.name in fed
        and spec.role == INPUT
        and not spec.shares
        and 0 < spec.nbytes <= LARGEST
        and runners[spec.processor].host_memory
        and runners[spec.processor].sees_host_memory()
    }


def common_memory(
    program: Program, runners: Mapping[str, Runner], known: Mapping[str, Buffer]
) -> dict[str, Array]:
    """By buffer, the memory (bytes) of each group that shares some.

    A state that is ``known`` stays where it is. Groups are left out if it lies over no memory of
    the host, or if a processor does not compute on such: a program from a file may meet another
    device than the one that it was made for. Their tensors are copied.
    """
    groups: dict[str, list[str]] = {}
    specs = {spec.name: spec for spec in program.buffers}
    for spec in program.buffers:
        if spec.shares:
            groups.setdefault(spec.shares, [spec.shares]).append(spec.name)
    memory: dict[str, Array] = {}
    for first, group in groups.items():
        if all(runners[specs[name].processor].host_memory for name in group):
            block = _block([specs[name] for name in group], known.get(first))
            if block is None:
                continue
            memory.update((name, block) for name in group)
            if specs[first].role == SCRATCH:
                memory.update((name, _part(block, specs[name])) for name in group[1:])
    return memory


def _block(group: Sequence[BufferSpec], known: Buffer | None) -> Array | None:
    """Memory for a group, the first of which has all of it; none if that is a state elsewhere."""
    role, nbytes = group[0].role, max(spec.offset + spec.nbytes for spec in group)
    if role not in (STATE, SCRATCH) or known is None:
        return page_aligned(nbytes)
    if role == STATE or (known.over is not None and known.nbytes >= nbytes):
        return known.over
    return page_aligned(nbytes)


def _part(block: Array, spec: BufferSpec) -> Array:
    """What a buffer has of an arena."""
    return block[spec.offset : spec.offset + spec.nbytes]
