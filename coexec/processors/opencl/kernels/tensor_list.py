"""Kernels over several tensors: their parameters, and how work-groups find theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def tensor_text(
    sources: Sequence[str],
    targets: Sequence[str],
    kind: str,
    count: int,
    numbers: Sequence[str] = (),
) -> dict[str, str]:
    """The defines TENSORS and PICK of a kernel over ``count`` tensors.

    Each has pointers to ``kind`` that are read and written, a size, its first chunk's number and
    whatever ``numbers`` names more.
    """
    parameters: list[str] = []
    picks: list[str] = []
    for index in range(count):
        parameters += [f"__global const {kind} *{name}{index}" for name in sources]
        parameters += [f"__global {kind} *{name}{index}" for name in targets]
        parameters += [f"const int {name}{index}" for name in ("size", "first", *numbers)]
        names = (*sources, *targets, "size", "first", *numbers)
        chosen = " ".join(f"{name} = {name}{index};" for name in names)
        picks.append(f"if ((chunk) >= first{index}) {{ {chosen} }}" if index else f"{{ {chosen} }}")
    # The last tensor whose first chunk is not beyond the group's; tensors are never empty.
    first, *others = picks
    choice = " else ".join((*reversed(others), first))
    return {"TENSORS": ", ".join(parameters), "PICK(chunk)": choice}


def first_chunks(sizes: Sequence[int], chunk: int) -> tuple[list[int], int]:
    """The number of each tensor's first chunk, and of all chunks."""
    *firsts, total = accumulate((-(-size // chunk) for size in sizes), initial=0)
    return firsts, total
