"""The memory that a program takes at its peak on a phone, and what is largest in it."""

from __future__ import annotations

from collections.abc import Iterator

from coexec.core.program import SCRATCH, Program
from coexec.processors.simulated.executable import SimulatedExecutable, intermediate_lifetimes


def largest_tensors(program: Program, count: int) -> list[tuple[str, int]]:
    """Names and bytes of the largest tensors that are there when most memory is used."""
    whole = [(spec.name, spec.nbytes) for spec in program.buffers if spec.role != SCRATCH]
    arenas = [
        tensor for executable in _largest_arenas(program) for tensor in _live_at_peak(executable)
    ]
    weights = [
        (name, int(value.nbytes))
        for executable in program.executables
        if isinstance(executable, SimulatedExecutable)
        for name, value in executable.region.constants.items()
    ]
    return sorted([*whole, *arenas, *weights], key=lambda item: -item[1])[:count]


def _largest_arenas(program: Program) -> Iterator[SimulatedExecutable]:
    """Of each processor the executable that its arena was made for."""
    largest: dict[str, SimulatedExecutable] = {}
    for executable in program.executables:
        if isinstance(executable, SimulatedExecutable):
            known = largest.get(executable.processor)
            if known is None or executable.scratch_bytes > known.scratch_bytes:
                largest[executable.processor] = executable
    yield from largest.values()


def _live_at_peak(executable: SimulatedExecutable) -> list[tuple[str, int]]:
    blocks = intermediate_lifetimes(executable.region, [k.nodes for k in executable.kernels])
    changes: dict[int, int] = {}
    for block in blocks.values():
        changes[block.first] = changes.get(block.first, 0) + block.nbytes
        changes[block.last + 1] = changes.get(block.last + 1, 0) - block.nbytes
    live, most, peak = 0, 0, 0
    for step in sorted(changes):
        live += changes[step]
        if live > most:
            most, peak = live, step
    return [(name, b.nbytes) for name, b in blocks.items() if b.first <= peak <= b.last]
