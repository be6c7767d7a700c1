"""An operator call as its cost depends on it: family, sizes, arithmetic, traffic."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from coexec.core.types import OpCall, compute_dtype
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.packed_product import MATMUL_NBITS
from coexec.ops.recurrent_geometry import GATES, Recurrence
from coexec.ops.recurrent_steps import StepsCall
from coexec.ops.table import opdef

CONV, GROUPED, DEPTHWISE, DENSE = "conv", "conv-grouped", "conv-depthwise", "dense"
POOL, REDUCE, MOVE, ELEMENTWISE = "pool", "reduce", "move", "elementwise"
FAMILIES = (CONV, GROUPED, DEPTHWISE, DENSE, POOL, REDUCE, MOVE, ELEMENTWISE)

CONVOLUTIONS = frozenset(
    {"Conv", "ConvTranspose", "coexec::ConvInputGrad", "coexec::ConvWeightGrad"}
)
STEPS = frozenset(f"coexec::{cell}Steps{end}" for cell in GATES for end in ("", "Grad"))
PRODUCTS = frozenset(
    {"Gemm", "MatMul", "Einsum", "Attention", MATMUL_NBITS.identifier, "coexec::TransposedMatMul"}
)
POOLS = frozenset({"MaxPool", "AveragePool", "coexec::MaxPoolGrad", "coexec::AveragePoolGrad"})
REDUCTIONS = ("Reduce", "GlobalAveragePool", "GlobalMaxPool", "Softmax", "LogSoftmax", "ArgM")
INPUT, OUTPUT, ATTENTION = "Input", "Output", "product of activations"
"""What brings the images of a run into an engine's own order and back; one kind of MatMul."""
ACTIVATION = "Activation"
"""One other than a maximum, computed together with what is in front of it."""
JOINS = frozenset({"Concat", "Split"})
"""What reads or writes parts of one map."""
MAP_RANK = 4
"""Tensors of so many axes have channels in the second and pixels in the last two."""
MOVEMENTS = frozenset({"Concat", "Split", "Transpose", "Slice", "Pad", "Gather", "Tile", "Expand"})


@dataclass(frozen=True)
class Workload:
    """Sizes in elements; ``flop`` counts a multiply-add as 2.

    A product of (M, K) and (K, N) has ``out_pixels`` M, ``in_channels`` K and ``out_channels`` N.
    ``weights`` is the second operand, ``others`` further operands that are read element by element
    of the output (a fused addition). ``op`` is the operator's name where it is known, or
    :data:`INPUT`, :data:`OUTPUT` or :data:`ACTIVATION`. Of what neither convolves nor multiplies,
    ``height`` and ``width`` are those of its maps, and ``part_channels`` the greatest number that
    divides the channels of all parts of what is joined or split.
    """

    family: str
    flop: float
    in_elements: float
    out_elements: float
    weights: float = 0.0
    others: float = 0.0
    out_pixels: float = 1.0
    in_channels: float = 1.0
    out_channels: float = 1.0
    kernel: float = 1.0
    stride: float = 1.0
    groups: float = 1.0
    op: str = ""
    height: float = 1.0
    width: float = 1.0
    part_channels: float = 1.0

    @property
    def elements(self) -> float:
        """All that is read and written, once."""
        return self.in_elements + self.out_elements + self.weights + self.others

    def traffic_bytes(self, precision: str) -> float:
        """Least memory traffic with elements of type ``precision``."""
        return self.elements * np.dtype(precision).itemsize


def workload(call: OpCall) -> Workload:
    """The workload of a call whose output types are known."""
    if call.identifier in CONVOLUTIONS:
        return _convolution(call)
    if call.identifier in PRODUCTS:
        return _product(call)
    if call.identifier in STEPS:
        return _recurrent(call, StepsCall.of(call).geometry)
    if call.identifier in GATES:
        return _recurrent(call, Recurrence.of(call))
    work = opdef(call).work(call)
    outputs = sum(kind.size for kind in call.outputs if kind is not None)
    inputs = sum(kind.size for kind in call.inputs if kind is not None)
    if call.op_type == "Gather":
        inputs = outputs  # of a table, the rows that are picked
    height, width = _sides(call)
    return Workload(
        _family(call),
        work.flop,
        inputs,
        outputs,
        out_pixels=outputs,
        op=call.op_type,
        height=height,
        width=width,
        part_channels=_part_channels(call),
    )


def _sides(call: OpCall) -> tuple[int, int]:
    """Height and width of the result, 1 and 1 if it is no map."""
    shape = call.output(0).shape
    return (shape[-2], shape[-1]) if len(shape) >= MAP_RANK else (1, 1)


def _part_channels(call: OpCall) -> int:
    """The greatest number that divides the channels of all parts; 1 if nothing is joined."""
    if call.op_type not in JOINS:
        return 1
    parts = call.inputs if call.op_type == "Concat" else call.outputs
    shapes = [kind.shape for kind in parts if kind is not None and kind.rank]
    return gcd(*(shape[1] if len(shape) >= MAP_RANK else shape[-1] for shape in shapes))


def _family(call: OpCall) -> str:
    if call.identifier in POOLS:
        return POOL
    if call.op_type.startswith(REDUCTIONS):
        return REDUCE
    return MOVE if call.op_type in MOVEMENTS else ELEMENTWISE


def _convolution(call: OpCall) -> Workload:
    g = ConvGeometry.of(call)
    depthwise = g.group > 1 and g.group == g.in_channels
    family = DEPTHWISE if depthwise else GROUPED if g.group > 1 else CONV
    weights = g.out_channels * g.in_channels // g.group * prod(g.kernel)
    return Workload(
        family=family,
        flop=g.flop,
        in_elements=g.batch * g.in_channels * prod(g.in_size),
        out_elements=g.batch * g.out_channels * prod(g.out_size),
        weights=weights,
        out_pixels=g.batch * prod(g.out_size),
        in_channels=g.in_channels,
        out_channels=g.out_channels,
        kernel=prod(g.kernel) ** (1 / max(len(g.kernel), 1)),
        stride=max(g.strides, default=1),
        groups=g.group,
        op=call.op_type,
    )


def _product(call: OpCall) -> Workload:
    work = opdef(call).work(call)
    out = sum(kind.size for kind in call.outputs if kind is not None)
    columns = call.output(0).shape[-1] if call.output(0).rank else 1
    rows = out / max(columns, 1)
    operands = [kind.size for kind in call.inputs if kind is not None]
    return Workload(
        # Many rows are a convolution of so many pixels to the engines that were measured.
        family=DENSE if rows <= 1 else CONV,
        flop=work.flop,
        in_elements=operands[0],
        out_elements=out,
        weights=sum(operands[1:]),
        out_pixels=rows,
        in_channels=work.flop / max(2 * out, 1),
        out_channels=columns,
        op=_product_name(call),
    )


def _recurrent(call: OpCall, layer: Recurrence) -> Workload:
    """Products of as many rows as there are samples: the next step waits for them."""
    sizes = [kind.size for kind in call.inputs if kind is not None]
    return Workload(
        family=DENSE if layer.batch <= 1 else CONV,
        flop=opdef(call).work(call).flop,
        in_elements=sizes[0],
        out_elements=sum(kind.size for kind in call.outputs if kind is not None),
        weights=sum(sizes[1:]),
        out_pixels=layer.batch,
        in_channels=layer.inputs + layer.hidden,
        out_channels=layer.gates * layer.hidden,
        op=call.op_type,
    )


def _product_name(call: OpCall) -> str:
    """With weights that are packed it is a MatMul that reads fewer elements."""
    if call.identifier == MATMUL_NBITS.identifier:
        return "MatMul"
    return ATTENTION if len(call.inputs) > 1 and _batched(call) else call.op_type


def _batched(call: OpCall) -> bool:
    """A product whose second operand has a matrix for each of the first's, as attention has."""
    return call.identifier == "MatMul" and call.input(1).rank > 2


def precision_of(call: OpCall) -> str:
    """Element type a call computes in, as a key of rates: a float type, ``int8``, else float32."""
    name = compute_dtype(call)
    if "float16" in name:
        return "float16"
    return "int8" if name in {"int8", "uint8"} else "float32"
