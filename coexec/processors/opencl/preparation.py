"""Kernels that read nothing but constants: they run once, when a region is first launched.

Which those are, the marks of the lowerings tell: a ``layout`` or ``prepares`` kernel reads operands
of the call and writes whole blocks of scratch that the kernels after it only read. Where all its
operands are constants (the weights of inference), its results are, and get memory that outlives a
run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from coexec.processors.opencl.family import KernelCall, Lowering, Operand


@dataclass(frozen=True)
class Prepared:
    """A lowering divided: ``once`` writes prepared ``blocks`` (bytes), ``lowering`` reads them.

    Operands of kind ``prepared`` name these blocks by number.
    """

    once: tuple[KernelCall, ...]
    blocks: tuple[int, ...]
    lowering: Lowering


def divide(lowering: Lowering, constants: Collection[int]) -> Prepared:
    """Take out the kernels that need no operand but ``constants`` (numbers of inputs).

    A block of scratch that several kernels fill one after another becomes a block for each.
    """
    once: list[KernelCall] = []
    each: list[KernelCall] = []
    blocks: list[int] = []
    places: dict[Operand, Operand] = {}
    for call in lowering.calls:
        written = scratch_of(call) if call.layout or call.prepares else ()
        if written and _reads_only(call, constants):
            for block in written:
                places[block] = Operand("prepared", len(blocks))
                blocks.append(lowering.scratch[block.index])
            once.append(_moved(call, places))
        else:
            for block in written:
                places.pop(block, None)
            each.append(_moved(call, places))
    used = {operand.index for call in each for operand in scratch_of(call)}
    scratch = tuple(size if i in used else 0 for i, size in enumerate(lowering.scratch))
    return Prepared(
        tuple(once), tuple(blocks), replace(lowering, calls=tuple(each), scratch=scratch)
    )


def scratch_of(call: KernelCall) -> tuple[Operand, ...]:
    """Blocks of scratch among the arguments of a kernel."""
    return tuple(a for a in call.args if isinstance(a, Operand) and a.kind == "scratch")


def _reads_only(call: KernelCall, constants: Collection[int]) -> bool:
    """Whether a kernel reads some of these inputs, no others, and writes no output."""
    operands = [a for a in call.args if isinstance(a, Operand) and a.kind != "scratch"]
    return bool(operands) and all(a.kind == "input" and a.index in constants for a in operands)


def _moved(call: KernelCall, places: Mapping[Operand, Operand]) -> KernelCall:
    """``call`` with the blocks that were prepared in the place of scratch."""
    args = tuple(places.get(a, a) if isinstance(a, Operand) else a for a in call.args)
    return replace(call, args=args)
