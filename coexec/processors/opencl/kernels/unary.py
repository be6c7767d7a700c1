"""Elementwise operators of one operand: y[i] = f(x[i])."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.cnumbers import compute_type, erf_text, literal
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

SIGMOID = "((V)1 / ((V)1 + EXP(V, -{x})))"
MISH = "(EXP(V, x) * (EXP(V, x) + (V)2))"
CLAMP01 = "({x} < (V)0 ? (V)0 : ({x} > (V)1 ? (V)1 : {x}))"
ELU = "(x > (V)0 ? x : (V){alpha} * expm1(x))"
SIGN = "(x > (V)0 ? (V)1 : (x < (V)0 ? (V)-1 : x))"

EXPRESSIONS: Mapping[str, str] = {
    "Relu": "(x < (V)0 ? (V)0 : x)",
    "Sigmoid": SIGMOID.format(x="x"),
    "HardSwish": f"(x * {CLAMP01.format(x='(x * (V)(1.0f / 6.0f) + (V)0.5f)')})",
    "Tanh": "tanh(x)",
    "Softplus": "((x < (V)0 ? (V)0 : x) + log1p(EXP(V, -fabs(x))))",
    "Softsign": "(x / ((V)1 + fabs(x)))",
    # tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), e = exp(x); 1 in float from x = 20 on.
    "Mish": f"(x > (V)20 ? x : x * {MISH} / ({MISH} + (V)2))",
    "Neg": "(-x)",
    "Sqrt": "sqrt(x)",
    "Exp": "EXP(V, x)",
    "Log": "log(x)",
    "Reciprocal": "((V)1 / x)",
    "Sin": "sin(x)",
    "Cos": "cos(x)",
    "Tan": "tan(x)",
    "Asin": "asin(x)",
    "Acos": "acos(x)",
    "Atan": "atan(x)",
    "Sinh": "sinh(x)",
    "Cosh": "cosh(x)",
    "Asinh": "asinh(x)",
    "Acosh": "acosh(x)",
    "Atanh": "atanh(x)",
    "Floor": "floor(x)",
    "Ceil": "ceil(x)",
    "Round": "rint(x)",
    "IsNaN": "(x != x)",
    "Not": "(x == (V)0)",
    "BitwiseNot": "(~x)",
}
"""Expression of operators without attributes in ``x`` of type ``V`` (a scalar or a vector).

``EXP(V, x)`` is that of ``exponential.cl``."""

PREDICATES = frozenset({"IsNaN", "IsInf", "Not"})


def _number(call: OpCall, name: str, default: float) -> str:
    return literal(float(call.attribute(name, default)), call.input(0).dtype)


def leaky_relu(call: OpCall) -> str:
    return f"(x < (V)0 ? x * (V){_number(call, 'alpha', 0.01)} : x)"


def elu(call: OpCall) -> str:
    return ELU.format(alpha=_number(call, "alpha", 1.0))


def selu(call: OpCall) -> str:
    alpha = _number(call, "alpha", 1.67326319217681884765625)
    gamma = _number(call, "gamma", 1.05070102214813232421875)
    return f"((V){gamma} * {ELU.format(alpha=alpha)})"


def celu(call: OpCall) -> str:
    alpha = _number(call, "alpha", 1.0)
    return f"(x > (V)0 ? x : (V){alpha} * expm1(x / (V){alpha}))"


def thresholded_relu(call: OpCall) -> str:
    return f"(x > (V){_number(call, 'alpha', 1.0)} ? x : (V)0)"


def hard_sigmoid(call: OpCall) -> str:
    line = f"(x * (V){_number(call, 'alpha', 0.2)} + (V){_number(call, 'beta', 0.5)})"
    return CLAMP01.format(x=line)


def swish(call: OpCall) -> str:
    return f"(x * {SIGMOID.format(x='(V)' + _number(call, 'alpha', 1.0) + ' * x')})"


def gelu(call: OpCall) -> str:
    """By tanh: (1 + tanh(u)) / 2 is the sigmoid of 2u, which needs one exp."""
    dtype = call.input(0).dtype
    if call.attribute("approximate", "none") == "none":
        scaled = erf_text(f"(x * (V){literal(0.5**0.5, dtype)})", dtype)
        return f"((V)0.5f * x * ((V)1 + {scaled}))"
    twice = literal(-2 * (2 / np.pi) ** 0.5, dtype)
    cube = literal(0.044715, dtype)
    return f"(x / ((V)1 + EXP(V, (V){twice} * (x + (V){cube} * x * x * x))))"


def erf(call: OpCall) -> str:
    return erf_text("x", call.input(0).dtype)


def absolute(call: OpCall) -> str:
    """As max(x, -x) for integers: oclgrind does not know what LLVM makes of a comparison."""
    return {"f": "fabs(x)", "u": "x"}.get(call.input(0).dtype.kind, "max(x, (V)(-x))")


def sign(call: OpCall) -> str:
    return "(x > (V)0 ? (V)1 : (V)0)" if call.input(0).dtype.kind == "u" else SIGN


def is_inf(call: OpCall) -> str:
    detected = [
        f"(x == (V){bound})"
        for name, bound in (("detect_positive", "INFINITY"), ("detect_negative", "(-INFINITY)"))
        if call.attribute(name, 1)
    ]
    return f"({' | '.join(detected)})" if detected else "((x == x) & (x != x))"


WITH_ATTRIBUTES: Mapping[str, Callable[[OpCall], str]] = {
    "LeakyRelu": leaky_relu,
    "Elu": elu,
    "Selu": selu,
    "Celu": celu,
    "ThresholdedRelu": thresholded_relu,
    "HardSigmoid": hard_sigmoid,
    "Swish": swish,
    "Gelu": gelu,
    "Erf": erf,
    "Abs": absolute,
    "Sign": sign,
    "IsInf": is_inf,
}
"""Operators whose expression depends on attributes or on the element type."""

IDENTITY = "x"


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def elementwise(
    call: OpCall,
    expression: str,
    params: Mapping[str, int],
    source: Argument | None = None,
    target: Argument | None = None,
) -> KernelCall:
    """One pass of ``expression`` in ``x``, from input 0 to output 0 unless told otherwise."""
    size, width, local = call.output(0).size, params["WIDTH"], params["LOCAL"]
    dtype = call.input(0).dtype
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "U": c_type(call.output(0).dtype),
        "C": compute_type(dtype),
        "W": width,
        "F(V, x)": expression,
    }
    if dtype == np.float16:
        defines["WIDEN"] = 1
    if call.op_type in PREDICATES:
        defines["PREDICATE"] = 1
    return KernelCall(
        family="unary",
        entry="unary",
        args=(source or inp(0), target or out(0), i32(size)),
        global_size=(ceil_to(max(-(-size // width), 1), local),),
        local_size=(local,),
        defines=defines,
    )


def clip(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    """Bounds are read on the device; an absent one is masked by its flag."""
    kind, width, local = call.output(0), params["WIDTH"], params["LOCAL"]
    has_low, has_high = call.has_input(1), call.has_input(2)
    return KernelCall(
        family="unary",
        entry="clip",
        args=(
            inp(0),
            inp(1 if has_low else 0),
            inp(2 if has_high else 0),
            out(0),
            i32(kind.size),
            i32(has_low),
            i32(has_high),
        ),
        global_size=(ceil_to(max(-(-kind.size // width), 1), local),),
        local_size=(local,),
        defines={
            "T": c_type(kind.dtype),
            "U": c_type(kind.dtype),
            "C": c_type(kind.dtype),
            "W": width,
        },
    )


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.output(0).size == 0:
        return Lowering(())
    if call.op_type == "Clip":
        return Lowering((clip(call, params),))
    rule = WITH_ATTRIBUTES.get(call.op_type)
    expression = rule(call) if rule else EXPRESSIONS[call.op_type]
    return Lowering((elementwise(call, expression, params),))


def lower_scalar(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element per work-item."""
    return lower(call, facts, {**params, "WIDTH": 1})


WIDE_SPACE: Mapping[str, tuple[int, ...]] = {"WIDTH": (16, 8, 4), "LOCAL": (32, 64, 128)}
"""Elements of a work-item and items of a group, for all elementwise families."""
COALESCED: Mapping[str, int] = {"WIDTH": 4, "LOCAL": 64}
"""On a GPU neighbouring items touch neighbouring 16 bytes: a wave asks for one run of memory."""


def suited_width(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """What each item of an elementwise kernel takes: a CPU's items write whole cache lines."""
    return COALESCED if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "unary",
    (*EXPRESSIONS, *WITH_ATTRIBUTES, "Clip"),
    (
        Variant("wide", lower, applies, WIDE_SPACE, suited_width),
        Variant("naive", lower_scalar, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
