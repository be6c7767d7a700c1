"""Elementwise operators of two or more operands, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.arithmetic import shifts_left
from coexec.processors.opencl.broadcast import (
    MAX_RANK,
    Loops,
    broadcast_loops,
    line_geometry,
    stride_arguments,
)
from coexec.processors.opencl.cnumbers import compute_type, erf_text, literal
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.kernels import unary

MINIMUM = "((((b) != (b)) | ((b) < (a))) ? (b) : (a))"  # NaN wins, as in NumPy
MAXIMUM = "((((b) != (b)) | ((b) > (a))) ? (b) : (a))"

EXPRESSIONS: Mapping[str, str] = {
    "Add": "((a) + (b))",
    "Sub": "((a) - (b))",
    "Mul": "((a) * (b))",
    "Min": MINIMUM,
    "Max": MAXIMUM,
    "Sum": "((a) + (b))",
    "Mean": "((a) + (b))",
    "BitwiseAnd": "((a) & (b))",
    "BitwiseOr": "((a) | (b))",
    "BitwiseXor": "((a) ^ (b))",
    "And": "((a) & (b))",
    "Or": "((a) | (b))",
    "Xor": "((a) ^ (b))",
    "Equal": "((a) == (b))",
    "Less": "((a) < (b))",
    "LessOrEqual": "((a) <= (b))",
    "Greater": "((a) > (b))",
    "GreaterOrEqual": "((a) >= (b))",
    "PRelu": "((a) < (V)0 ? (a) * (b) : (a))",
}
"""Expression of operators that are the same for all element types, in ``a``, ``b`` of type V."""

PREDICATES = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
VARIADIC = frozenset({"Sum", "Mean", "Min", "Max"})


def divide(call: OpCall) -> str:
    kind = call.input(0).dtype.kind
    return {"f": "((a) / (b))", "u": "UQUOTIENT(a, b)"}.get(kind, "QUOTIENT(a, b)")


def mod(call: OpCall) -> str:
    kind = call.input(0).dtype.kind
    if kind == "f":
        return "fmod(a, b)" if call.attribute("fmod", 0) else "FLOOR_MOD(V, a, b)"
    if kind == "u":
        return "UREMAINDER(a, b)"
    return "REMAINDER(a, b)" if call.attribute("fmod", 0) else "floor_remainder(a, b)"


def power(call: OpCall) -> str:
    """pow() for float bases; integers by squaring, or through float for a float exponent."""
    base, exponent = call.input(0).dtype, call.input(1).dtype
    if base.kind == "f":
        return "pow(a, b)" if base == exponent else "pow(a, (V)(b))"
    return "integer_power(a, b)" if exponent.kind in "iu" else "(V)pow((float)(a), (float)(b))"


KNOWN_POWERS: Mapping[float, str] = {
    -1.0: "((V)1 / x)",
    -0.5: "((V)1 / sqrt(x))",
    0.5: "sqrt(x)",
    1.0: "x",
    2.0: "(x * x)",
    3.0: "(x * x * x)",
    4.0: "((x * x) * (x * x))",
}
"""Powers of floats that need no pow()."""


def known_power(call: OpCall) -> str | None:
    """Expression in ``x`` where the exponent is one of :data:`KNOWN_POWERS`."""
    exponent = call.constant(1)
    if exponent is None or np.size(exponent) != 1 or call.input(0).dtype.kind != "f":
        return None
    if call.output(0).shape != call.input(0).shape:
        return None
    return KNOWN_POWERS.get(float(np.asarray(exponent).reshape(())))


def applies_known(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type != "Pow" or known_power(call) is None:
        return "no power by a known exponent of -1, -1/2, 1/2, 1, 2, 3, 4"
    return applies(call, facts)


def lower_known(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A power as a few multiplications."""
    text = known_power(call)
    if text is None or call.output(0).size == 0:
        return Lowering(())
    return Lowering((unary.elementwise(call, text, params),))


def shift(call: OpCall) -> str:
    """C leaves a shift by the width or more, or by a negative number, undefined: all bits go."""
    bits = call.input(0).dtype.itemsize * 8
    outside = f"((ulong)(b) >= {bits})"
    if shifts_left(call):
        return f"({outside} ? (V)0 : (V)((a) << (b)))"
    return f"({outside} ? (V)((a) < 0 ? -1 : 0) : (V)((a) >> (b)))"


def gelu_grad(call: OpCall) -> str:
    """a = dy, b = x; see ``coexec.ops.gelu``."""
    dtype = call.input(1).dtype

    def num(value: float) -> str:
        return f"(V){literal(value, dtype)}"

    if call.attribute("approximate", "none") == "none":
        cdf = f"({num(0.5)} * ({num(1)} + {erf_text(f'((b) * {num(0.5**0.5)})', dtype)}))"
        density = f"({num(1 / (2 * np.pi) ** 0.5)} * EXP(V, {num(-0.5)} * (b) * (b)))"
        return f"((a) * ({cdf} + (b) * {density}))"
    scale = (2 / np.pi) ** 0.5
    # With s the sigmoid of 2u: (1 + tanh u) / 2 = s and (1 - tanh^2 u) / 2 = 2 s (1 - s).
    power_ = f"({num(-2 * scale)} * ((b) + {num(0.044715)} * (b) * (b) * (b)))"
    s = f"({num(1)} / ({num(1)} + EXP(V, {power_})))"
    inner = f"({num(2 * scale)} * ({num(1)} + {num(3 * 0.044715)} * (b) * (b)))"
    return f"((a) * {s} * ({num(1)} + (b) * ({num(1)} - {s}) * {inner}))"


TYPED: Mapping[str, Callable[[OpCall], str]] = {
    "Div": divide,
    "Mod": mod,
    "Pow": power,
    "BitShift": shift,
    "coexec::GeluGrad": gelu_grad,
}
"""Operators whose expression depends on element types or attributes."""

LINE_RANK = 5
"""Loops of the kernel ``binary``."""

SCALAR_ONLY = frozenset({"Div", "Mod", "Pow", "BitShift"})
"""Operators whose integer expressions take no vectors."""


def expression(call: OpCall) -> str:
    rule = TYPED.get(call.identifier)
    return rule(call) if rule else EXPRESSIONS[call.op_type]


def is_mixed(call: OpCall) -> bool:
    return len(call.inputs) == 2 and call.input(0).dtype != call.input(1).dtype


@dataclass(frozen=True)
class Step:
    """One pass ``target = text(left, right)`` over the result's shape."""

    text: str
    left: Operand
    right: Operand
    loops: Loops


def steps(call: OpCall) -> list[Step]:
    """A left fold over the operands that accumulates in the output."""
    result = call.output(0).shape
    shapes = [call.input(i).shape for i in range(len(call.inputs))]
    text = expression(call)
    found = [Step(text, inp(0), inp(1), broadcast_loops(result, shapes[:2]))]
    for index in range(2, len(shapes)):
        loops = broadcast_loops(result, (result, shapes[index]))
        found.append(Step(text, out(0), inp(index), loops))
    if call.op_type == "Mean":
        count = literal(len(shapes), call.output(0).dtype)
        last = found.pop()
        found.append(Step(f"({text} / (V){count})", last.left, last.right, last.loops))
    return found


def defines(call: OpCall, text: str, width: int) -> dict[str, str | int | float]:
    dtype = call.input(0).dtype
    found: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "S": c_type(call.input(len(call.inputs) - 1).dtype),
        "U": c_type(call.output(0).dtype),
        "C": compute_type(dtype),
        "W": width,
        "F(V, a, b)": text,
    }
    if dtype == np.float16:
        found["WIDEN"] = 1
    if call.op_type in PREDICATES:
        found["PREDICATE"] = 1
    if dtype.kind in "iu":
        found["INTEGERS"] = 1
    if is_mixed(call):
        found["MIXED"] = 1
    return found


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = refuse_types((*call.inputs, *call.outputs), facts)
    if refusal is not None or len(call.inputs) == 1:
        return refusal
    rank = max(len(step.loops.dims) for step in steps(call))
    return None if rank <= MAX_RANK else f"broadcast over {rank} loops, more than {MAX_RANK}"


def applies_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    """At most five loops; integer division, power and shift have no vector form."""
    refusal = applies(call, facts)
    if refusal is not None or len(call.inputs) == 1:
        return refusal
    if is_mixed(call):
        return "operands of two element types"
    rank = max(len(step.loops.dims) for step in steps(call))
    return None if rank <= LINE_RANK else f"broadcast over {rank} loops, more than {LINE_RANK}"


def line_call(call: OpCall, step: Step, params: Mapping[str, int]) -> KernelCall:
    """``width`` elements of a line per work-item."""
    loops = step.loops.padded(LINE_RANK)
    *outer, middle, inner = loops.dims
    scalar_only = call.op_type in SCALAR_ONLY and call.input(0).dtype.kind != "f"
    width = 1 if scalar_only else params["WIDTH"]
    sizes, local = line_geometry(inner, middle, prod(outer), width, params["LOCAL"])
    strides = [i32(s) for operand in loops.strides for s in operand]
    return KernelCall(
        family="binary",
        entry="binary",
        args=(step.left, step.right, out(0), *map(i32, loops.dims), *strides),
        global_size=sizes,
        local_size=local,
        defines=defines(call, step.text, width),
    )


def strided_call(call: OpCall, step: Step, params: Mapping[str, int]) -> KernelCall:
    """One element per work-item, any strides."""
    size, local = call.output(0).size, params["LOCAL"]
    return KernelCall(
        family="binary",
        entry="strided",
        args=(step.left, step.right, out(0), i32(size), *stride_arguments(step.loops)),
        global_size=(ceil_to(size, local),),
        local_size=(local,),
        defines=defines(call, step.text, 1),
    )


def lower_with(
    make: Callable[[OpCall, Step, Mapping[str, int]], KernelCall],
) -> Callable[[OpCall, DeviceFacts, Mapping[str, int]], Lowering]:
    """Lowering that makes one kernel call per step; one operand alone is copied."""

    def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
        if call.output(0).size == 0:
            return Lowering(())
        if len(call.inputs) == 1:
            copy = unary.elementwise(call, unary.IDENTITY, {"WIDTH": 1, **params})
            return Lowering((copy,))
        return Lowering(tuple(make(call, step, params) for step in steps(call)))

    return lower


FAMILY = KernelFamily(
    "binary",
    (*EXPRESSIONS, *TYPED),
    (
        Variant("known_power", lower_known, applies_known, unary.WIDE_SPACE, unary.suited_width),
        Variant(
            "lines", lower_with(line_call), applies_lines, unary.WIDE_SPACE, unary.suited_width
        ),
        Variant("naive", lower_with(strided_call), applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
