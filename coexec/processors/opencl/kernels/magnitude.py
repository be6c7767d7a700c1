"""The magnitude of any number of tensors: many in one launch, then the sum of their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coexec.core.types import OpCall
from coexec.ops.magnitude import MAGNITUDE
from coexec.ops.opdef import COEXEC
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DOUBLE,
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.tensor_list import first_chunks, one_each, tensor_text

MOST_TENSORS = 48
"""In one launch, whose arguments take at most 1024 bytes on every device."""

JOINING = 64
"""Work-items that add up partial sums at most."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def accumulator(call: OpCall) -> str:
    """NumPy name of the type of partial sums: float64 if an operand is."""
    return "float64" if DOUBLE in {kind.dtype for kind in call.inputs if kind} else "float32"


def batches(call: OpCall) -> Iterator[list[int]]:
    """Operands that hold anything, as many of one type as a launch takes."""
    by_type: dict[str, list[int]] = {}
    for index in range(len(call.inputs)):
        kind = call.input(index)
        if kind.size:
            by_type.setdefault(kind.dtype.name, []).append(index)
    for own in by_type.values():
        for start in range(0, len(own), MOST_TENSORS):
            yield own[start : start + MOST_TENSORS]


def partial_sums(
    call: OpCall, own: Sequence[int], params: Mapping[str, int], first_sum: int
) -> tuple[KernelCall, int]:
    """The launch for some operands, which writes partial sums from ``first_sum`` on; how many."""
    width, local = params["WIDTH"], params["LOCAL"]
    chunk = width * local * params["ROUNDS"]
    dtype = call.input(own[0]).dtype
    firsts, chunks = first_chunks([call.input(i).size for i in own], chunk)
    arguments: list[Argument] = [scratch(0), i32(first_sum)]
    for index, first in zip(own, firsts, strict=True):
        arguments += [inp(index), i32(call.input(index).size), i32(first)]
    acc = "double" if accumulator(call) == "float64" else compute_type(dtype)
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "ACC": acc,
        "W": width,
        "CHUNK": chunk,
        **tensor_text(("x",), (), "T", len(own)),
    }
    if acc != c_type(dtype):
        defines["WIDEN"] = 1
    kinds = [call.input(index) for index in own]
    kernel = KernelCall(
        family="magnitude",
        entry="partial_sums",
        args=tuple(arguments),
        global_size=(chunks * local,),
        local_size=(local,),
        defines=defines,
        flop=sum(kind.size for kind in kinds),
        bytes=sum(kind.nbytes for kind in kinds),
    )
    return kernel, chunks * local


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A partial sum for each work-item, then one work-group that adds them up."""
    calls, count = [], 0
    for own in batches(call):
        kernel, sums = partial_sums(call, own, params, count)
        calls.append(kernel)
        count += sums
    joining = 1 if facts.unit_kind == "cpu" else min(JOINING, facts.max_work_group_size)
    acc = "double" if accumulator(call) == "float64" else "float"
    join = KernelCall(
        family="magnitude",
        entry="join_sums",
        args=(scratch(0), out(0), i32(count)),
        global_size=(joining,),
        local_size=(joining,),
        defines={"T": acc, "ACC": acc, "LANES": joining, "ROWS": 1},
        flop=count,
    )
    return Lowering((*calls, join), (max(count, 1) * (8 if acc == "double" else 4),))


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Neighbouring work-items of a GPU read neighbouring vectors; a core goes on by itself."""
    return {"WIDTH": 4, "ROUNDS": 16, "LOCAL": 64} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "magnitude",
    (f"{COEXEC}::{MAGNITUDE}",),
    (
        Variant(
            "many",
            lower,
            applies,
            space={"WIDTH": (16, 8, 4), "ROUNDS": (256, 1024, 64, 16), "LOCAL": (1, 16, 64)},
            suited=suited,
        ),
        Variant("naive", one_each(lower), applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
