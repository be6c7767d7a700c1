"""Reductions over axes, and positions of extremes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.axes import normalize_axis
from coexec.ops.reduce import reduce_axes
from coexec.processors.opencl.cnumbers import highest_literal, lowest_literal
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
    scratch,
)
from coexec.processors.opencl.kernels.reducing import (
    Formula,
    Problem,
    accumulator,
    collapse,
    four_dims,
    group_call,
    reduce_calls,
    strided_call,
)

ADD = "((a) + (b))"
LARGER = "((((b) != (b)) | ((b) > (a))) ? (b) : (a))"  # NaN wins, as in NumPy
SMALLER = "((((b) != (b)) | ((b) < (a))) ? (b) : (a))"

FORMULAS: Mapping[str, Formula] = {
    "ReduceSum": Formula("0", ADD),
    "ReduceMean": Formula("0", ADD, finish="((a) / (V)count)"),
    "ReduceProd": Formula("1", "((a) * (b))"),
    "ReduceL2": Formula("0", ADD, map="((v) * (v))", finish="sqrt(a)"),
    "ReduceLogSum": Formula("0", ADD, finish="log(a)"),
    "ReduceLogSumExp": Formula(
        "0", ADD, map="exp((v) - shift)", finish="(log(a) + shift)", shifted=True
    ),
    "ReduceSumSquare": Formula("0", ADD, map="((v) * (v))"),
}
FLOAT_ONLY = frozenset({"ReduceL2", "ReduceLogSum", "ReduceLogSumExp"})


def formula_of(op_type: str, dtype: np.dtype[Any]) -> Formula:
    """The formula for an element type: extremes and magnitudes depend on it."""
    if op_type == "ReduceMax":
        return Formula(lowest_literal(dtype), LARGER)
    if op_type == "ReduceMin":
        return Formula(highest_literal(dtype), SMALLER)
    if op_type == "ReduceL1":
        magnitude = {"f": "fabs(v)", "u": "(v)"}.get(dtype.kind, "max(v, (V)(-(v)))")
        return Formula("0", ADD, map=magnitude)
    return FORMULAS[op_type]


def acc_of(call: OpCall) -> np.dtype[Any]:
    """Integer means sum in int64, so that they do not wrap before the division."""
    dtype = call.input(0).dtype
    if call.op_type == "ReduceMean" and dtype.kind in "iu":
        return np.dtype(np.int64)
    return accumulator(dtype)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    x = call.input(0)
    if call.op_type in FLOAT_ONLY and x.dtype.kind != "f":
        return f"{call.op_type} of integers"
    runs = collapse(x.shape, reduce_axes(call))
    if sum(reduced for reduced, _, _ in runs) > 4 or sum(not r for r, _, _ in runs) > 4:
        return "more than four separate groups of reduced or kept axes"
    return refuse_types((x, call.output(0)), facts)


def applies_staged(call: OpCall, facts: DeviceFacts) -> str | None:
    x = call.input(0)
    if x.size == 0:
        return "no elements"
    if four_dims(x.shape, reduce_axes(call)) is None:
        return "more than four alternating groups of kept and reduced axes"
    return applies(call, facts)


def problem_of(call: OpCall) -> Problem:
    """The reduction of input 0 into output 0; ``dims`` matter to the staged variant only."""
    x = call.input(0)
    return Problem(
        formula_of(call.op_type, x.dtype),
        four_dims(x.shape, reduce_axes(call)) or (1, 1, 1, 1),
        inp(0),
        x.dtype,
        out(0),
        call.output(0).dtype,
        acc_of(call),
    )


def maxima(problem: Problem) -> Problem:
    """The maximum of each output's elements, into scratch block 0: what a shifted sum needs."""
    formula = formula_of("ReduceMax", problem.acc)
    return replace(problem, formula=formula, target=scratch(0), target_dtype=problem.acc)


def lower_staged(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Vectors of the inner axis, in one stage or two."""
    problem = problem_of(call)
    if problem.outputs == 0:
        return Lowering(())
    if not problem.formula.shifted:
        calls, blocks = reduce_calls(problem, params)
        return Lowering(tuple(calls), tuple(blocks))
    block = problem.outputs * problem.acc.itemsize
    first, some = reduce_calls(maxima(problem), params, 1)
    second, more = reduce_calls(replace(problem, shift=scratch(0)), params, 1 + len(some))
    return Lowering((*first, *second), (block, *some, *more))


def applies_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = staged_applies(call, facts)
    if refusal:
        return refusal
    problem = problem_of(call)
    if problem.dims[3] < LEAST_ROW:
        return "rows are short, or other axes than the innermost one are reduced"
    if problem.outputs < FEW_OUTPUTS * facts.compute_units:
        return "few outputs: each is the work of several groups"
    return None


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Work-items side by side read a row; shifted formulas find its maximum before."""
    problem = problem_of(call)
    if problem.outputs == 0:
        return Lowering(())
    if not problem.formula.shifted:
        return Lowering((group_call(problem, params, problem.count),))
    first = group_call(maxima(problem), params, problem.count)
    second = group_call(replace(problem, shift=scratch(0)), params, problem.count)
    return Lowering((first, second), (problem.outputs * problem.acc.itemsize,))


def lower_strided(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per output."""
    problem = problem_of(call)
    outputs = call.output(0).size
    if outputs == 0:
        return Lowering(())
    shape, axes = call.input(0).shape, reduce_axes(call)
    if not problem.formula.shifted:
        return Lowering((strided_call(problem, shape, axes, params),))
    first = strided_call(maxima(problem), shape, axes, params)
    second = strided_call(replace(problem, shift=scratch(0)), shape, axes, params)
    return Lowering((first, second), (outputs * problem.acc.itemsize,))


ARG_OPERATORS = ("ArgMax", "ArgMin")


def arg_applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower_arg(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per output walks the axis."""
    x, local = call.input(0), params["LOCAL"]
    outputs = call.output(0).size
    if outputs == 0:
        return Lowering(())
    axis = normalize_axis(int(call.attribute("axis", 0)), x.rank)
    sign = ">" if call.op_type == "ArgMax" else "<"
    sign += "=" if call.attribute("select_last_index", 0) else ""
    kernel = KernelCall(
        family="reduce",
        entry="arg",
        args=(inp(0), out(0), *map(i32, (outputs, prod(x.shape[axis + 1 :]), x.shape[axis]))),
        global_size=(ceil_to(outputs, local),),
        local_size=(local,),
        defines={"T": c_type(x.dtype), "W": 1, "BETTER(a, b)": f"((a) {sign} (b))"},
    )
    return Lowering((kernel,))


def naive_applies(call: OpCall, facts: DeviceFacts) -> str | None:
    rule = arg_applies if call.op_type in ARG_OPERATORS else applies
    return rule(call, facts)


def naive_lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    rule = lower_arg if call.op_type in ARG_OPERATORS else lower_strided
    return rule(call, facts, params)


def staged_applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type in ARG_OPERATORS:
        return f"{call.op_type} has one kernel only"
    return applies_staged(call, facts)


LEAST_ROW, FEW_OUTPUTS = 8, 4
"""Elements of a row that work-items share; outputs for each compute unit that keep it busy."""
GROUP_SPACE: Mapping[str, tuple[int, ...]] = {"LOCAL": (64, 32, 128, 256)}
STAGED_SPACE: Mapping[str, tuple[int, ...]] = {
    "WIDTH": (16, 8, 4),
    "LOCAL": (16, 32, 64),
    # 1: neighbouring work-items read neighbouring vectors of a row (GPUs); 0: each its own chunk.
    "INTERLEAVE": (0, 1),
}


def suited_stages(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """On a GPU neighbouring work-items read neighbouring vectors, here of 16 bytes."""
    return {"WIDTH": 4, "LOCAL": 64, "INTERLEAVE": 1} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "reduce",
    (*FORMULAS, "ReduceL1", "ReduceMax", "ReduceMin", *ARG_OPERATORS),
    (
        Variant("groups", lower_groups, applies_groups, GROUP_SPACE, units=("gpu",)),
        Variant("staged", lower_staged, staged_applies, STAGED_SPACE, suited_stages),
        Variant("naive", naive_lower, naive_applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
