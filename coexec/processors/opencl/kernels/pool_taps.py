"""Maximum pooling that notes which elements it took, and its gradient: ``pool_taps.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, prod

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.compressed import BLOCK
from coexec.ops.pool_taps import passes_positive
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
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
from coexec.processors.opencl.kernels.pool import SPATIAL_RANK, axis_arguments, work_group
from coexec.processors.opencl.kernels.pool_fixed import geometry
from coexec.processors.opencl.kernels.pool_pairs import LEAST_LANES

FORWARD, GRADIENT = "coexec::MaxPoolTaps", "coexec::MaxPoolTapsGrad"
SCALAR_BYTES = 4
"""Vector width of a device that has no vectors."""


def data_of(call: OpCall) -> TensorType:
    """A tensor of the type that maxima are taken of."""
    return call.input(0) if call.identifier == FORWARD else call.input(1)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kind = data_of(call)
    if kind.dtype.kind != "f":
        return f"no kernel for {kind.dtype.name}"
    if kind.rank > SPATIAL_RANK + 2:
        return f"more than {SPATIAL_RANK} spatial axes"
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_pairs(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    if refusal:
        return refusal
    g = geometry(call)
    tiles = g.kernel == g.strides == (2, 2) and g.dilations == (1, 1)
    if not tiles or g.out_size != tuple(n // 2 for n in g.in_size) or any(g.pads_begin):
        return "windows are not the 2 x 2 tiles of X"
    if data_of(call).dtype == np.float64:
        return "taps are compared with floats"
    if facts.vector_bytes <= SCALAR_BYTES:
        return "the device computes on scalars"
    if facts.unit_kind != "cpu" or g.out_size[1] < LEAST_LANES:
        return "no vectors along rows"
    return None


def _operands(call: OpCall) -> tuple[Argument, ...]:
    """Tensors, then of the forward pass whether only positive maxima pass gradients."""
    if call.identifier == GRADIENT:
        return inp(0), inp(1), out(0)
    return inp(0), out(0), out(1), i32(passes_positive(call))


def _defines(call: OpCall, tiles: int) -> dict[str, str | int | float]:
    dtype = data_of(call).dtype
    return {
        "T": c_type(dtype),
        "ACC": compute_type(dtype),
        "TILES": tiles,
    }


def refuse_codes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why rows of 2 x 2 tiles cannot keep their maxima as codes, else ``None``."""
    refusal = applies_pairs(call, facts)
    if refusal:
        return refusal
    kind = call.output(0)
    if kind.dtype != np.float32:
        return f"codes of {kind.dtype.name} have kernels of their own"
    return "the last block is not whole" if kind.size % BLOCK else None


def lower_pairs(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Rows of 2 x 2 tiles."""
    return lower_codes(call, facts, params, bits=0)


def lower_codes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int], bits: int) -> Lowering:
    """The same; with ``bits``, maxima are also kept as words, result 2, and ends, result 3."""
    if data_of(call).size == 0:
        return Lowering(())
    g, dtype = geometry(call), data_of(call).dtype
    sums = np.dtype(np.float32) if dtype == np.float16 else dtype
    widest = min(max(facts.vector_bytes, 16) // sums.itemsize, 16)
    lines = g.batch * g.channels * g.out_size[0]
    operands = _operands(call)
    granule = BLOCK // gcd(BLOCK, g.out_size[1]) if bits else 1
    if bits:
        operands = (*operands[:-1], out(2), out(3), i32(granule), operands[-1])
    kernel = KernelCall(
        "pool_taps",
        "pairs" if call.identifier == FORWARD else "pairs_grad",
        (*operands, *map(i32, (lines, *g.in_size, *g.out_size))),
        (min(facts.compute_units * params["SHARES"], lines // granule),),
        (1,),
        {
            **_defines(call, 1),
            "V": min(widest, 1 << (g.out_size[1].bit_length() - 1)),
            "SAME": int(dtype == sums),
            **({"BITS": bits} if bits else {}),
        },
    )
    return Lowering((kernel,))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element of the result per work-item."""
    result = call.output(0).shape
    if call.output(0).size == 0:
        return Lowering(())
    width, rows = result[-1], prod(result[:-1])
    local = work_group(width, rows, params["LOCAL"])
    kernel = KernelCall(
        "pool_taps",
        "max_pool_taps" if call.identifier == FORWARD else "max_pool_taps_grad",
        (*_operands(call), i32(rows), *axis_arguments(geometry(call))),
        (ceil_to(width, local[0]), ceil_to(rows, local[1])),
        local,
        _defines(call, 0),
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "pool_taps",
    (FORWARD, GRADIENT),
    (
        Variant("pairs", lower_pairs, applies_pairs, space={"SHARES": (8, 4, 16)}, units=("cpu",)),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
