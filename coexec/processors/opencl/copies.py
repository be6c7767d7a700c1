"""Copies at the end of a region: small ones share a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from coexec.processors.opencl.executable import CopyStep, KernelStep, Label, Slot, Step
from coexec.processors.opencl.family import KernelCall, Scalar, i32
from coexec.processors.opencl.kernels.tensor_list import first_chunks, tensor_text

WORD = 4
MOST_COPIES = 32
"""Copies of one kernel: two pointers and two numbers each, of the 1024 bytes of arguments that
every device takes."""
SMALL = 1 << 16
"""Bytes up to which a launch costs more than what the driver's own copy gains."""
VECTOR, CHUNK = 4, 1024
"""Words of a work-item's vector and of a work-group."""


def together(
    copies: Sequence[CopyStep], program: Callable[[KernelCall], int], items: int = 1
) -> list[Step]:
    """The same copies in fewer steps, those of one phase together; none reads what one writes.

    Kernels run in work-groups of ``items``.
    """
    steps: list[Step] = [copy for copy in copies if not _is_small(copy)]
    for phase in dict.fromkeys(copy.label.phase for copy in copies):
        small = [copy for copy in copies if _is_small(copy) and copy.label.phase == phase]
        for start in range(0, len(small), MOST_COPIES):
            batch = small[start : start + MOST_COPIES]
            steps.append(
                batch[0] if len(batch) == 1 else _kernel(batch, phase, program, items=items)
            )
    return steps


def by_kernel(copy: CopyStep, vector_bytes: int, program: Callable[[KernelCall], int]) -> Step:
    """A large copy by all cores, where it is of whole words; its label stays."""
    if copy.nbytes % WORD:
        return copy
    return replace(
        _kernel([copy], copy.label.phase, program, vector_bytes // WORD), label=copy.label
    )


def _is_small(copy: CopyStep) -> bool:
    return copy.nbytes <= SMALL and copy.nbytes % WORD == 0


def _kernel(
    batch: Sequence[CopyStep],
    phase: str,
    program: Callable[[KernelCall], int],
    vector: int = VECTOR,
    items: int = 1,
) -> KernelStep:
    sizes = [copy.nbytes // WORD for copy in batch]
    firsts, chunks = first_chunks(sizes, CHUNK)
    text = tensor_text(("x",), ("y",), "uint", len(batch))
    sizes_of_launch = (chunks * items,), (items,)
    defines: dict[str, str | int | float] = {"T": "uint", "W": vector, "CHUNK": CHUNK, **text}
    call = KernelCall("casts", "casts", (), *sizes_of_launch, defines)
    args: list[Slot | Scalar] = []
    for copy, size, first in zip(batch, sizes, firsts, strict=True):
        args += [copy.src, copy.dst, i32(size), i32(first)]
    label = Label(
        f"{batch[0].label.name} and {len(batch) - 1} more",
        "copy",
        phase=phase,
        bytes=sum(copy.label.bytes for copy in batch),
        source=batch[0].label.source,
        items=chunks * items,
    )
    return KernelStep(
        program(call), call.entry, tuple(args), call.global_size, call.local_size, label
    )
