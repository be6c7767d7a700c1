"""Chains of elementwise operators, fused by the compiler of regions, as one generated kernel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain as joined
from math import prod

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.processors.opencl.broadcast import Loops, broadcast_loops, line_geometry
from coexec.processors.opencl.cnumbers import compute_type, mask_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.fusion.chain import CHAIN, Chain, Source, chain_of
from coexec.processors.opencl.fusion.expressions import step_function
from coexec.processors.opencl.kernels.binary import LINE_RANK
from coexec.processors.opencl.kernels.unary import WIDE_SPACE, suited_width

BOOL = np.dtype(np.bool_)
DENSE, SINGLE, STRIDED = "dense", "single", "strided"


def number_type(call: OpCall) -> np.dtype[np.generic]:
    """The one element type of a chain's tensors that are not boolean."""
    steps = (step.call for step in chain_of(call).steps)
    kinds = joined.from_iterable((*step.inputs, *step.outputs) for step in steps)
    return next(k.dtype for k in kinds if k is not None and k.dtype != BOOL)


def loops_of(call: OpCall) -> Loops:
    return broadcast_loops(call.output(0).shape, [k.shape for k in call.inputs if k is not None])


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    rank = len(loops_of(call).dims)
    if rank > LINE_RANK:
        return f"broadcast over {rank} loops, more than {LINE_RANK}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def kind_of(operand: TensorType, result: TensorType) -> str:
    """How an operand lies beside a dense result."""
    if operand.size == 1:
        return SINGLE
    return DENSE if operand.size == result.size else STRIDED


def step_lines(chain: Chain) -> tuple[dict[str, str | int | float], str]:
    """The function of each step as a define, and the statements that apply them."""
    functions: dict[str, str | int | float] = {}
    statements = []
    for index, step in enumerate(chain.steps):
        names, text = step_function(step.call)
        functions[f"F{index}({', '.join(('V', 'NUMBER', *names))})"] = text
        own = (_register(source) for source in step.sources if source is not None)
        kind = "B" if step.call.output(0).dtype == BOOL else "V"
        arguments = ", ".join(("V", "NUMBER", *own))
        statements.append(f"const {kind} t{index} = F{index}({arguments});")
    return functions, " ".join(statements)


def _register(source: Source) -> str:
    return {
        "operand": f"v{source.index}",
        "number": f"(V)n{source.index}",
        "step": f"t{source.index}",
    }[source.kind]


def tensor_text(call: OpCall) -> dict[str, str | int | float]:
    """Defines that name the chain's tensors, read and write them."""
    chain, result, loops = chain_of(call), call.output(0), loops_of(call)
    parameters, loads, saves = [], [], []
    for index in range(len(call.inputs)):
        operand = call.input(index)
        boolean = operand.dtype == BOOL
        lies = kind_of(operand, result)
        along = lies == DENSE or (lies == STRIDED and loops.strides[index][-1] == 1)
        value = _value(index, boolean, along)
        loads.append(f"const {'B' if boolean else 'V'} v{index} = {value};")
        parameters.append(f"__global const {'uchar' if boolean else 'T'} *x{index}")
    for index, step in enumerate(chain.results):
        boolean = call.output(index).dtype == BOOL
        saves.append(f"{'MARK' if boolean else 'SAVE'}(y{index} + (i), t{step});")
        parameters.append(f"__global {'uchar' if boolean else 'T'} *y{index}")
    numbers = [f"const C n{index}" for index in range(len(chain.numbers))]
    return {
        "OPERANDS": ", ".join((*parameters, *numbers)),
        "LOADS(V, B, LOAD, TEST, i)": " ".join(loads),
        "SAVES(SAVE, MARK, i)": " ".join(saves),
    }


def _value(index: int, boolean: bool, along: bool) -> str:
    """Operand ``index`` at elements from i on, or its one value of the line."""
    if along:
        return f"{'TEST' if boolean else 'LOAD'}(x{index} + (i))"
    # One truth value becomes all ones in a vector: compared there, not cast.
    return f"((V)TEST1(x{index}) != (V)0)" if boolean else f"(V)LOAD1(x{index})"


def stride_text(call: OpCall, moved: list[int]) -> dict[str, str | int | float]:
    """Defines that bring pointers to a line: those of broadcast operands by their strides."""
    names = [[f"s{index}_{axis}" for axis in range(LINE_RANK - 1)] for index in moved]
    declared = "".join(f", const int {name}" for own in names for name in own)
    moves = [
        f"x{index} += k0 * {a} + k1 * {b} + k2 * {c} + j * {d};"
        for index, (a, b, c, d) in zip(moved, names, strict=True)
    ]
    dense = [
        f"x{index} += line;"
        for index in range(len(call.inputs))
        if kind_of(call.input(index), call.output(0)) == DENSE
    ]
    results = [f"y{index} += line;" for index in range(len(call.outputs))]
    return {"LINES": 1, "STRIDES": declared, "MOVES": " ".join((*moves, *dense, *results))}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """``WIDTH`` elements of a line per work-item; one line if nothing is broadcast."""
    chain, result = chain_of(call), call.output(0)
    if result.size == 0:
        return Lowering(())
    moved = [i for i in range(len(call.inputs)) if kind_of(call.input(i), result) == STRIDED]
    dtype = number_type(call)
    compute = np.dtype(np.float32) if dtype == np.float16 else dtype
    functions, statements = step_lines(chain)
    loops = loops_of(call).padded(LINE_RANK)
    inner = loops.dims[-1] if moved else result.size
    width = _width(params.get("WIDTH", 1), inner)
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "C": compute_type(dtype),
        "M": mask_type(compute),
        "W": width,
        **functions,
        "STEPS(V, B, NUMBER)": statements,
        **tensor_text(call),
    }
    if dtype == np.float16:
        defines["WIDEN"] = 1
    shape: list[Argument]
    if moved:
        *outer, middle, _ = loops.dims
        sizes, local = line_geometry(inner, middle, prod(outer), width, params["LOCAL"])
        defines |= stride_text(call, moved)
        strides = [s for index in moved for s in loops.strides[index][:-1]]
        shape = [*map(i32, loops.dims), *map(i32, strides)]
    else:
        sizes, local = (ceil_to(-(-inner // width), params["LOCAL"]),), (params["LOCAL"],)
        shape = [i32(inner)]
    tensors = (*map(inp, range(len(call.inputs))), *map(out, range(len(call.outputs))))
    numbers = [Scalar(value, compute.name) for value in chain.numbers]
    kernel = KernelCall(
        family="chain",
        entry="chain",
        args=(*tensors, *numbers, *shape),
        global_size=sizes,
        local_size=local,
        defines=defines,
    )
    return Lowering((kernel,))


def _width(wanted: int, inner: int) -> int:
    """The widest vector up to ``wanted`` of which a line holds one."""
    while wanted > 1 and wanted > inner:
        wanted //= 2
    return wanted


FAMILY = KernelFamily(
    "chain",
    (CHAIN.identifier,),
    (
        Variant("wide", lower, applies, WIDE_SPACE, suited_width),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
