"""Reductions over axes, and the positions of extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, normalize_axes, normalize_axis
from coexec.ops.elementwise import widen
from coexec.ops.opdef import Example, GradientRule, GradientScope, OpDef, Sample, Work
from coexec.ops.term import Term, grad_term, input_term, output_term

Kernel = Callable[[Array, tuple[int, ...]], Any]


def reduce_axes(call: OpCall) -> tuple[int, ...]:
    """Axes that a Reduce* removes, sorted; ``ValueError`` while their values are not known."""
    rank = call.input(0).rank
    values: tuple[int, ...] = ()
    if call.has_input(1):
        known = call.constant(1)
        if known is None:
            raise ValueError(f"{call.identifier} needs the values of its axes before running")
        values = tuple(int(v) for v in np.asarray(known).reshape(-1))
    if values:
        return tuple(sorted(normalize_axes(values, rank)))
    return () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))


def kept_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """``shape`` with 1 at the reduced axes."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def reduced_shape(shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    kept = kept_shape(shape, axes)
    return kept if keepdims else tuple(d for i, d in enumerate(kept) if i not in axes)


def keeps_dims(call: OpCall) -> bool:
    return bool(call.attribute("keepdims", 1))


def infer_reduce(call: OpCall) -> Sequence[TensorType]:
    shape = reduced_shape(call.input(0).shape, reduce_axes(call), keeps_dims(call))
    return (call.input(0).with_shape(shape),)


def reference(kernel: Kernel) -> Callable[[OpCall, Sequence[Any]], Sequence[Array]]:
    """Reference from ``kernel(x, axes)``, which keeps the reduced axes as 1."""

    def compute(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        x = np.asarray(operands[0])
        axes = reduce_axes(call)
        with np.errstate(all="ignore"):
            kept = np.asarray(kernel(widen(x), axes))
        shape = reduced_shape(x.shape, axes, keeps_dims(call))
        return (kept.reshape(shape).astype(x.dtype, copy=False),)

    return compute


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum in the element type, so that integers wrap as they do on a device."""
    return np.asarray(np.sum(x, axis=axes, keepdims=True, dtype=x.dtype))


def mean(x: Array, axes: tuple[int, ...]) -> Array:
    if x.dtype.kind == "f":
        return np.asarray(np.mean(x, axis=axes, keepdims=True))
    return np.asarray(np.trunc(np.mean(x, axis=axes, keepdims=True, dtype=np.float64)))


def product(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.prod(x, axis=axes, keepdims=True, dtype=x.dtype))


def lowest(dtype: np.dtype[Any]) -> Any:
    """What every value of the type is at least: the maximum of nothing."""
    if dtype.kind == "f":
        return -np.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def highest(dtype: np.dtype[Any]) -> Any:
    """The minimum of nothing."""
    if dtype.kind == "f":
        return np.inf
    return True if dtype.kind == "b" else np.iinfo(dtype).max


def maximum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.max(x, axis=axes, keepdims=True, initial=lowest(x.dtype)))


def minimum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.min(x, axis=axes, keepdims=True, initial=highest(x.dtype)))


def log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    """log(sum(exp(x))), shifted by the maximum where that is finite."""
    wide = x if x.dtype.kind == "f" else x.astype(np.float64)
    top = maximum(wide, axes)
    shift = np.where(np.isfinite(top), top, 0)
    return np.asarray(np.log(total(np.exp(wide - shift), axes)) + shift)


def spread(g: GradientScope, value: Term, *, expand: bool = True) -> Term:
    """A reduced tensor over the operand's axes again (1 where reduced, or repeated)."""
    shape = g.call.input(0).shape
    kept = value.reshape(kept_shape(shape, reduce_axes(g.call)))
    return kept.expand(shape) if expand else kept


def sum_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return with_axes(g, spread(g, grad_term(g)))


def with_axes(g: GradientScope, dx: Term) -> Sequence[ir.Value | None]:
    return (dx.value, *(None for _ in g.inputs[1:]))


def mean_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    shape = g.call.input(0).shape
    count = prod(shape[axis] for axis in reduce_axes(g.call))
    return with_axes(g, spread(g, grad_term(g) * (1 / max(count, 1))))


def extreme_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Equal shares to all elements that attain the extreme."""
    x = input_term(g)
    attains = x.equals(spread(g, output_term(g), expand=False))
    count = attains.cast(x.type.dtype).reduce_sum(reduce_axes(g.call), keepdims=True)
    return with_axes(g, attains.where(spread(g, grad_term(g), expand=False) / count, 0))


def prod_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Product of the others: right also where one or more elements are zero."""
    x = input_term(g)
    axes = reduce_axes(g.call)
    zero = x.equals(0)
    count = zero.cast(x.type.dtype).reduce_sum(axes, keepdims=True)
    nonzero = zero.where(1, x)
    listed = Term(g, g.constant(int64s(axes), "int64"))
    product_of_nonzero = nonzero.op("ReduceProd", listed, keepdims=1) if axes else nonzero
    share = spread(g, grad_term(g), expand=False) * product_of_nonzero / nonzero
    alone = zero.op("And", count.equals(1)).op("Or", count.equals(0))
    return with_axes(g, alone.where(share, 0))


def l1_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return with_axes(g, spread(g, grad_term(g), expand=False) * input_term(g).op("Sign"))


def l2_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """x / |x|, zero for the zero vector as PyTorch has it."""
    y = output_term(g)
    vanishes = y.equals(0)
    scale = vanishes.where(0, grad_term(g) / vanishes.where(1, y))
    return with_axes(g, spread(g, scale, expand=False) * input_term(g))


def log_sum_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return with_axes(g, spread(g, grad_term(g) / output_term(g).op("Exp")))


def log_sum_exp_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    y = spread(g, output_term(g), expand=False)
    return with_axes(g, spread(g, grad_term(g), expand=False) * (input_term(g) - y).op("Exp"))


def sum_square_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return with_axes(g, spread(g, grad_term(g) * 2, expand=False) * input_term(g))


def infer_arg(call: OpCall) -> Sequence[TensorType]:
    x = call.input(0)
    axis = normalize_axis(int(call.attribute("axis", 0)), x.rank)
    if x.shape[axis] == 0:
        raise ValueError(f"{call.identifier}: axis {axis} of {x} has no elements")
    shape = reduced_shape(x.shape, (axis,), keeps_dims(call))
    return (TensorType(shape, np.dtype(np.int64)),)


def arg_reference(function: Callable[..., Any]) -> Callable[..., Sequence[Array]]:
    """Position of the first (or last) extreme along ``axis``."""

    def compute(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        x = widen(operands[0])
        axis = normalize_axis(int(call.attribute("axis", 0)), x.ndim)
        last = bool(call.attribute("select_last_index", 0))
        found = np.asarray(function(np.flip(x, axis) if last else x, axis=axis, keepdims=True))
        positions = x.shape[axis] - 1 - found if last else found
        shape = reduced_shape(x.shape, (axis,), keeps_dims(call))
        return (np.asarray(positions, np.int64).reshape(shape),)

    return compute


def reduce_work(call: OpCall) -> Work:
    x = call.input(0)
    return Work(x.size, x.nbytes + call.output(0).nbytes)


SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...] | None, int], ...] = (
    ((3, 5), (1,), 1),
    ((3, 5), (0,), 0),
    ((7, 19), None, 0),
    ((2, 3, 5, 7), (0, 2, 3), 0),
    ((2, 3, 5, 7), (1,), 1),
    ((2, 3, 4, 5), (-1, 1), 1),
    ((3, 2, 3, 2, 3), (0, 2, 4), 0),
    ((2, 1, 37), (-1,), 1),
    ((), None, 1),
)
BIG: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((5, 3, 41, 43), (0, 2, 3)),
    ((2, 5000), (1,)),
    ((5000, 3), (0,)),
)
"""Few outputs of many elements: the two-stage kernels."""


def examples(low: float, high: float, dtype: str = "float32") -> tuple[Example, ...]:
    return tuple(
        Example(
            (Sample(shape, dtype, low, high), *(() if axes is None else (int64s(axes),))),
            {"keepdims": keepdims},
            gradient=dtype == "float32",
        )
        for shape, axes, keepdims in SHAPES
    )


def special_examples(low: float, high: float) -> tuple[Example, ...]:
    """No axes with and without noop, nothing to reduce over, many elements."""
    return (
        Example((Sample((3, 5), low=low, high=high), int64s(())), {"noop_with_empty_axes": 1}),
        Example((Sample((3, 5), low=low, high=high), int64s(()))),
        Example((Sample((2, 0, 3)), int64s((1,))), gradient=False),
        *(
            Example((Sample(shape, low=low, high=high), int64s(axes)), gradient=False)
            for shape, axes in BIG
        ),
    )


def reduction(
    op_type: str,
    kernel: Kernel,
    gradient: GradientRule,
    low: float = -2.0,
    high: float = 2.0,
    integers: tuple[str, ...] = (),
) -> OpDef:
    """One Reduce* operator; ``integers`` are the integer types it is tried on."""
    special = special_examples(low, high)
    if op_type == "ReduceMean":
        special = tuple(e for e in special if not _is_empty(e))  # ONNX leaves that undefined
    return OpDef(
        op_type,
        infer_reduce,
        reference(kernel),
        gradient=gradient,
        work=reduce_work,
        examples=(
            *examples(low, high),
            *special,
            *(e for dtype in integers for e in examples(0 if dtype == "bool" else 1, 5, dtype)[:5]),
        ),
        value_inputs=(1,),
    )


def _is_empty(example: Example) -> bool:
    first = example.inputs[0]
    return isinstance(first, Sample) and 0 in first.shape


ARG_EXAMPLES = tuple(
    Example(
        (Sample(shape, dtype, 0, 4),),
        {"axis": axis, "keepdims": keepdims, "select_last_index": last},
        gradient=False,
    )
    for shape, axis, keepdims in (
        ((3, 5), 1, 1),
        ((2, 3, 7), 0, 0),
        ((4, 19, 3), -2, 1),
        ((9,), 0, 0),
    )
    for last in (0, 1)
    for dtype in ("float32", "int32")
)


def arg_extreme(op_type: str, function: Callable[..., Any]) -> OpDef:
    return OpDef(
        op_type,
        infer_arg,
        arg_reference(function),
        not_differentiable="the result is a position",
        work=reduce_work,
        examples=ARG_EXAMPLES,
    )


OPS = (
    reduction("ReduceSum", total, sum_gradient, integers=("int32", "int64")),
    reduction("ReduceMean", mean, mean_gradient, integers=("int32",)),
    reduction("ReduceMax", maximum, extreme_gradient, -20, 20, integers=("int32", "uint8", "bool")),
    reduction("ReduceMin", minimum, extreme_gradient, -20, 20, integers=("int64", "int8", "bool")),
    reduction("ReduceProd", product, prod_gradient, 0.9, 1.1, integers=("int32",)),
    reduction("ReduceL1", lambda x, axes: total(np.abs(x), axes), l1_gradient, integers=("int32",)),
    reduction("ReduceL2", lambda x, axes: np.sqrt(total(x * x, axes)), l2_gradient),
    reduction("ReduceLogSum", lambda x, axes: np.log(total(x, axes)), log_sum_gradient, 0.1, 2),
    reduction("ReduceLogSumExp", log_sum_exp, log_sum_exp_gradient),
    reduction("ReduceSumSquare", lambda x, axes: total(x * x, axes), sum_square_gradient),
    arg_extreme("ArgMax", np.argmax),
    arg_extreme("ArgMin", np.argmin),
)
