"""Col2Im and Im2Col, up to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from coexec.core.types import OpCall
from coexec.ops.unfold import Blocks
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)

AXES = 3


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if len(Blocks.of(call).sizes) > AXES:
        return f"more than {AXES} spatial axes"
    return refuse_types((call.input(0), *call.outputs), facts)


def _all(numbers: tuple[int, ...], missing: int) -> tuple[int, ...]:
    """With ``missing`` for the axes in front that are not there."""
    return (missing,) * (AXES - len(numbers)) + numbers


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    b, kind, local = Blocks.of(call), call.input(0), params["LOCAL"]
    if call.output(0).size == 0:
        return Lowering(())
    sizes, positions, block = _all(b.sizes, 1), _all(b.out, 1), _all(b.block, 1)
    steps, pads = _all(b.strides, 1), _all(b.pads[: len(b.sizes)], 0)
    folds = call.op_type == "Col2Im"
    inner = sizes[-1] if folds else positions[-1]
    rows = prod(b.images if folds else (*b.columns[:2], *b.out)) // inner
    numbers = (rows, *sizes, *positions, *block, *steps, *pads, *_all(b.dilations, 1))
    width = min(local, 1 << (inner - 1).bit_length())
    height = local // width
    kernel = KernelCall(
        "unfold",
        "col2im" if folds else "im2col",
        (inp(0), out(0), *map(i32, numbers)),
        (ceil_to(inner, width), ceil_to(rows, height)),
        (width, height),
        {"T": c_type(kind.dtype), "C": compute_type(kind.dtype)},
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "unfold",
    ("Col2Im", "coexec::Im2Col"),
    (Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),),
)
