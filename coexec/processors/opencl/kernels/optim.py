"""Optimizer steps: Momentum, Adam, Adagrad on any number of tensors, many in one launch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.opdef import TRAINING
from coexec.ops.optim_hyper import Hyper, hyper_of
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
    Variant,
    c_type,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.kernels.tensor_list import first_chunks, tensor_text

STATES: Mapping[str, tuple[str, ...]] = {"Momentum": ("s",), "Adam": ("s", "h"), "Adagrad": ("s",)}
"""The kernel's names for the states of a tensor."""

MOST_TENSORS = 16
ARGUMENT_BYTES = 1024 - 128
"""Of the bytes of arguments that every device takes, those left for tensors."""


def leading(call: OpCall) -> int:
    """Operands in front of the tensors: rate and count, and a factor on fused ones' gradients."""
    return 3 if call.domain == FUSED else 2


def tensor_count(call: OpCall) -> int:
    """How many tensors a call updates."""
    return (len(call.inputs) - leading(call)) // (2 + len(STATES[call.op_type]))


def tensors_per_launch(op_type: str) -> int:
    """How many tensors fit into the arguments of one kernel."""
    pointers = 3 + 2 * len(STATES[op_type])
    return min(MOST_TENSORS, ARGUMENT_BYTES // (8 * pointers + 2 * 4))


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    count, first = tensor_count(call), leading(call)
    if any(
        len({call.input(g + i).dtype for i in range(count)}) > 1 for g in (first, first + count)
    ):
        return "tensors of several element types in one node"
    return refuse_types((*call.inputs, *call.outputs), facts)


def numbers(op_type: str, h: Hyper) -> tuple[float, ...]:
    """The kernel's scalars, in its order; differences from 1 are taken before rounding."""
    if op_type == "Momentum":
        return (h.alpha, h.beta, h.norm)
    if op_type == "Adagrad":
        return (h.epsilon, h.norm, h.decay)
    first = (h.alpha, 1 - h.alpha, _log(h.alpha))
    second = (h.beta, 1 - h.beta, _log(h.beta))
    return (*first, *second, h.epsilon, h.norm, 1 - h.norm_post)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


@dataclass(frozen=True)
class Tensor:
    """One tensor of a call: its operands, its results and its elements."""

    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    size: int


def tensors_of(call: OpCall) -> tuple[list[Tensor], tuple[int, ...]]:
    """The tensors that hold anything, and scratch for the states that nobody reads."""
    count, states = tensor_count(call), len(STATES[call.op_type])
    found: list[Tensor] = []
    blocks: list[int] = []
    for index in range(count):
        kind = call.input(leading(call) + index)
        results: list[Operand] = []
        for position in range(index, (1 + states) * count, count):
            if position < len(call.outputs) and call.has_output(position):
                results.append(out(position))
            else:
                results.append(scratch(len(blocks)))
                blocks.append(kind.nbytes)
        first = leading(call) + index
        operands = tuple(inp(first + group * count) for group in range(2 + states))
        if kind.size:
            found.append(Tensor(operands, tuple(results), kind.size))
    return found, tuple(blocks)


def launch(
    call: OpCall, tensors: Sequence[Tensor], width: int, chunk: int, local: int
) -> KernelCall:
    """One kernel over the chunks of some tensors."""
    hyper, dtype = hyper_of(call), call.input(leading(call)).dtype
    gradient = call.input(leading(call) + tensor_count(call)).dtype
    compute = "float64" if dtype == np.float64 else "float32"
    states = STATES[call.op_type]
    targets = ("x_new", *(f"{state}_new" for state in states))
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "G": c_type(gradient),
        "R": c_type(call.input(0).dtype),
        "C": compute_type(dtype),
        "W": width,
        "CHUNK": chunk,
        call.op_type.upper(): 1,
        **tensor_text(("x", "g", *states), targets, "T", len(tensors), special={"g": "G"}),
    }
    if dtype == np.float16:
        defines["WIDEN"] = 1
    if hyper.nesterov:
        defines["NESTEROV"] = 1
    firsts, chunks = first_chunks([tensor.size for tensor in tensors], chunk)
    if c_type(gradient) != compute_type(dtype):
        defines["WIDEN_GRADIENT"] = 1
    if call.domain == FUSED:
        defines["SCALED"] = 1
    arguments: list[Argument] = [*map(inp, range(leading(call)))]
    arguments += [Scalar(v, compute) for v in numbers(call.op_type, hyper)]
    for tensor, first in zip(tensors, firsts, strict=True):
        arguments += [*tensor.operands, *tensor.results, i32(tensor.size), i32(first)]
    return KernelCall(
        family="optim",
        entry=call.op_type.lower(),
        args=tuple(arguments),
        global_size=(chunks * local,),
        local_size=(local,),
        defines=defines,
    )


def lower_many(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """As many tensors in a launch as its arguments can hold."""
    width, local = params["WIDTH"], params["LOCAL"]
    chunk = width * local * params["ROUNDS"]
    tensors, blocks = tensors_of(call)
    most = tensors_per_launch(call.op_type)
    batches = (tensors[start : start + most] for start in range(0, len(tensors), most))
    return Lowering(tuple(launch(call, batch, width, chunk, local) for batch in batches), blocks)


def lower_single(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A launch for each tensor, an element for each work-item."""
    tensors, blocks = tensors_of(call)
    local = params["LOCAL"]
    return Lowering(tuple(launch(call, [each], 1, local, local) for each in tensors), blocks)


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Neighbouring work-items of a GPU read neighbouring vectors; a core goes on by itself."""
    return {"WIDTH": 4, "ROUNDS": 4, "LOCAL": 64} if facts.unit_kind == "gpu" else {}


VARIANTS = (
    Variant(
        "many",
        lower_many,
        applies,
        space={"WIDTH": (16, 8, 4), "ROUNDS": (64, 256, 16, 4), "LOCAL": (1, 16, 64)},
        suited=suited,
    ),
    Variant("naive", lower_single, applies, space={"LOCAL": (64, 16, 256)}),
)

FAMILY = KernelFamily("optim", tuple(f"{TRAINING}::{name}" for name in STATES), VARIANTS)
UNSCALED_FAMILY = KernelFamily("optim", tuple(f"{FUSED}::{name}" for name in STATES), VARIANTS)
"""Of the operators that the compiler of regions makes."""
