"""Conversions of several tensors in one launch: the operator of ``fusion/casts.py``."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
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
)
from coexec.processors.opencl.fusion.casts import CASTS
from coexec.processors.opencl.kernels.tensor_list import first_chunks, one_each, tensor_text


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A work-group for each chunk of a tensor."""
    width, local = params["WIDTH"], params["LOCAL"]
    chunk = width * local * params["ROUNDS"]
    source, target = call.input(0).dtype, call.output(0).dtype
    sizes = [call.input(index).size for index in range(len(call.inputs))]
    firsts, chunks = first_chunks(sizes, chunk)
    arguments: list[Argument] = []
    for index, (size, first) in enumerate(zip(sizes, firsts, strict=True)):
        arguments += [inp(index), out(index), i32(size), i32(first)]
    defines: dict[str, str | int | float] = {
        "T": c_type(source),
        "U": c_type(target),
        "W": width,
        "CHUNK": chunk,
        **tensor_text(("x",), ("y",), "T", len(sizes), special={"y": "U"}),
    }
    kernel = KernelCall(
        family="casts",
        entry="casts",
        args=tuple(arguments),
        global_size=(chunks * local,),
        local_size=(local,),
        defines=defines,
    )
    return Lowering((kernel,))


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Neighbouring work-items of a GPU convert neighbouring elements."""
    return {"WIDTH": 4, "ROUNDS": 4, "LOCAL": 64} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "casts",
    (CASTS.identifier,),
    (
        Variant(
            "many",
            lower,
            applies,
            space={"WIDTH": (16, 8, 4), "ROUNDS": (256, 64, 16, 4), "LOCAL": (1, 16, 64)},
            suited=suited,
        ),
        Variant("naive", one_each(lower), applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
