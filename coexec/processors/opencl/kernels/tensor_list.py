"""Kernels over several tensors: their parameters, and how work-groups find theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType

from coexec.core.types import OpCall
from coexec.processors.opencl.family import DeviceFacts, Lower, Lowering


def tensor_text(
    sources: Sequence[str],
    targets: Sequence[str],
    kind: str,
    count: int,
    numbers: Sequence[str] = (),
    special: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The defines TENSORS and PICK of a kernel over ``count`` tensors.

    Each has pointers to ``kind`` (or what ``special`` says) that are read and written, a size, its
    first chunk's number and whatever ``numbers`` names more.
    """
    parameters: list[str] = []
    picks: list[str] = []
    for index in range(count):
        for qualifier, names in (("const ", sources), ("", targets)):
            parameters += [
                f"__global {qualifier}{special.get(name, kind)} *{name}{index}" for name in names
            ]
        parameters += [f"const int {name}{index}" for name in ("size", "first", *numbers)]
        everything = (*sources, *targets, "size", "first", *numbers)
        chosen = " ".join(f"{name} = {name}{index};" for name in everything)
        picks.append(f"if ((chunk) >= first{index}) {{ {chosen} }}" if index else f"{{ {chosen} }}")
    # The last tensor whose first chunk is not beyond the group's; tensors are never empty.
    first, *others = picks
    choice = " else ".join((*reversed(others), first))
    return {"TENSORS": ", ".join(parameters), "PICK(chunk)": choice}


def first_chunks(sizes: Sequence[int], chunk: int) -> tuple[list[int], int]:
    """The number of each tensor's first chunk, and of all chunks."""
    *firsts, total = accumulate((-(-size // chunk) for size in sizes), initial=0)
    return firsts, total


def one_each(lower: Lower) -> Lower:
    """The plainest variant of a kernel over chunks of tensors: an element for each work-item."""

    def naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
        return lower(call, facts, {"WIDTH": 1, "ROUNDS": 1, "LOCAL": params["LOCAL"]})

    return naive
