"""What takes the memory of a program, in words: for those whom an allocator refused."""

from __future__ import annotations

from coexec.base.units import bytes_text
from coexec.core.program import BOUNDARY, INPUT, OUTPUT, PAGES, SCRATCH, STATE, Program

TITLES = {
    SCRATCH: "for intermediate tensors",
    STATE: "for parameters and other states",
    INPUT: "for inputs",
    OUTPUT: "for outputs",
    BOUNDARY: "for tensors between regions",
}
LARGEST = 3
"""How many single buffers are named."""


def holders_text(program: Program, processor: str) -> str:
    """What a program holds on a processor, the largest share first, and its largest buffers.

    Buffers in the memory of another processor's are that one's.
    """
    specs = [
        spec
        for spec in program.buffers
        if spec.processor == processor and spec.role != PAGES and not spec.shares
    ]
    shares = {
        title: sum(spec.nbytes for spec in specs if spec.role == role)
        for role, title in TITLES.items()
    }
    shares["for constants"] = sum(
        e.constant_bytes for e in program.executables if e.processor == processor
    )
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    total = bytes_text(sum(shares.values()))
    parts = ", ".join(f"{bytes_text(nbytes)} {title}" for title, nbytes in ranked if nbytes)
    named = sorted((s for s in specs if s.role != SCRATCH), key=lambda s: -s.nbytes)[:LARGEST]
    largest = ", ".join(f"{spec.name} ({bytes_text(spec.nbytes)})" for spec in named)
    return f"{total}: {parts}; its largest buffers are {largest}"
