"""Losses on class labels, and the fused gradient of softmax with cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.loss import ignored_label, reduction_of
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels import softmax_groups
from coexec.processors.opencl.kernels.reduce import ADD
from coexec.processors.opencl.kernels.reducing import (
    Formula,
    Problem,
    accumulator,
    params_for_one,
    reduce_calls,
)

BACKWARD = "coexec::SoftmaxCrossEntropyLossGrad"
SUM = Formula("0", ADD)
MEAN = Formula("0", ADD, finish="((a) / (V)count)")


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "NegativeLogLikelihoodLoss":
        return "log probabilities need no pass over the classes"
    x = scores_of(call)[0]
    if prod(x.shape[2:]) != 1:
        return "scores have spatial dimensions"
    if call.identifier != BACKWARD and not call.has_output(1):
        return "no log probabilities wanted"
    if call.identifier != BACKWARD and x.dtype == np.float16:
        return "the loss would be read from rounded log probabilities"
    return applies(call, facts)


def scores_of(call: OpCall) -> tuple[TensorType, TensorType, int]:
    """Scores (or log probabilities), labels, and the position of the weights."""
    first = 1 if call.identifier == BACKWARD else 0
    return call.input(first), call.input(first + 1), first + 2


def weighs(call: OpCall) -> bool:
    """Whether labels have weights of their own: a mean then divides by their sum."""
    return call.has_input(scores_of(call)[2]) or ignored_label(call) is not None


def base_defines(call: OpCall, width: int) -> dict[str, str | int | float]:
    x, labels, weights = scores_of(call)
    found: dict[str, str | int | float] = {
        "T": c_type(x.dtype),
        "C": compute_type(x.dtype),
        "U": c_type(x.dtype),
        "L": c_type(labels.dtype),
        "W": width,
    }
    if x.dtype == np.float16:
        found["WIDEN"] = 1
    if ignored_label(call) is not None:
        found["IGNORES"] = 1
    if call.has_input(weights):
        found["WEIGHTED"] = 1
    return found


def ignored_argument(call: OpCall) -> Scalar:
    return Scalar(ignored_label(call) or 0, scores_of(call)[1].dtype.name)


def weights_operand(call: OpCall) -> Operand:
    """The weights, or any tensor where there are none."""
    position = scores_of(call)[2]
    return inp(position if call.has_input(position) else position - 2)


def total(
    call: OpCall,
    facts: DeviceFacts,
    formula: Formula,
    source: int,
    target: Operand,
    target_type: TensorType,
    base: int,
) -> tuple[list[KernelCall], list[int]]:
    """Reduction of scratch block ``source`` (one value per label) to one element."""
    x, labels, _ = scores_of(call)
    acc = accumulator(x.dtype)
    dims = (1, 1, 1, labels.size)
    problem = Problem(formula, dims, scratch(source), acc, target, target_type.dtype, acc)
    return reduce_calls(problem, params_for_one(facts), base)


def forward_call(
    call: OpCall, losses: Operand, own: Operand, params: Mapping[str, int], given: bool
) -> KernelCall:
    """Losses of all labels; from log probabilities that output 1 holds already if ``given``."""
    x, labels, _ = scores_of(call)
    defines = base_defines(call, 1)
    if call.op_type == "SoftmaxCrossEntropyLoss" and not given:
        defines["SCORES"] = 1
    log_prob = losses
    if call.has_output(1) and not given:
        defines["LOG_PROB"] = 1
        log_prob = out(1)
    if losses.kind == "scratch":
        defines["U"] = compute_type(x.dtype)
        if own != losses:
            defines["WEIGHS"] = 1
    inner = prod(x.shape[2:])
    return KernelCall(
        family="loss",
        entry="forward",
        args=(
            out(1) if given else inp(0),
            inp(1),
            weights_operand(call),
            losses,
            own,
            log_prob,
            *map(i32, (labels.size, inner, x.shape[1])),
            ignored_argument(call),
        ),
        global_size=(ceil_to(labels.size, params["LOCAL"]),),
        local_size=(params["LOCAL"],),
        defines=defines,
    )


def lower_forward(
    call: OpCall, facts: DeviceFacts, params: Mapping[str, int], given: bool = False
) -> Lowering:
    """Losses of all labels; then their sum, mean, or quotient with the weights' sum."""
    x, labels, _ = scores_of(call)
    if labels.size == 0:
        raise ValueError(f"{call.identifier}: no labels")
    how = reduction_of(call)
    if how == "none":
        return Lowering((forward_call(call, out(0), out(0), params, given),))
    size = accumulator(x.dtype).itemsize
    blocks = [labels.size * size]
    result = call.output(0)
    if how == "sum" or not weighs(call):
        formula = SUM if how == "sum" else MEAN
        calls, more = total(call, facts, formula, 0, out(0), result, 1)
        first = forward_call(call, scratch(0), scratch(0), params, given)
        return Lowering((first, *calls), (*blocks, *more))
    first = forward_call(call, scratch(0), scratch(1), params, given)
    wide = TensorType((), accumulator(x.dtype))
    blocks = [*blocks, labels.size * size, size, size]
    sums, some = total(call, facts, SUM, 0, scratch(2), wide, 4)
    weights, more = total(call, facts, SUM, 1, scratch(3), wide, 4 + len(some))
    quotient = KernelCall(
        family="loss",
        entry="divide",
        args=(scratch(2), scratch(3), out(0)),
        global_size=(1,),
        local_size=(1,),
        defines=base_defines(call, 1),
    )
    return Lowering((first, *sums, *weights, quotient), (*blocks, *some, *more))


def divisor_calls(
    call: OpCall, facts: DeviceFacts, params: Mapping[str, int]
) -> tuple[list[KernelCall], tuple[int, ...]]:
    """Sum of the labels' weights in scratch block 1; block 0 holds the weights."""
    x, labels, _ = scores_of(call)
    size, local = accumulator(x.dtype).itemsize, params["LOCAL"]
    weigh = KernelCall(
        family="loss",
        entry="weigh",
        args=(
            inp(2),
            weights_operand(call),
            scratch(0),
            *map(i32, (labels.size, x.shape[1])),
            ignored_argument(call),
        ),
        global_size=(ceil_to(labels.size, local),),
        local_size=(local,),
        defines=base_defines(call, 1),
    )
    wide = TensorType((), accumulator(x.dtype))
    calls, more = total(call, facts, SUM, 0, scratch(1), wide, 2)
    return [weigh, *calls], (labels.size * size, size, *more)


BACKWARD_KERNELS = ("backward", "backward_rows", "backward_elements")


def lower_backward(
    call: OpCall, facts: DeviceFacts, params: Mapping[str, int], entry: str
) -> Lowering:
    """One of ``BACKWARD_KERNELS``; all but the first are of scores (N, C)."""
    x, labels, _ = scores_of(call)
    if x.size == 0:
        return Lowering(())
    how, local = reduction_of(call), params["LOCAL"]
    calls: list[KernelCall] = []
    blocks: tuple[int, ...] = ()
    defines = base_defines(call, params.get("WIDTH", 1))
    divisor = inp(1)
    if how == "none":
        defines["EACH"] = 1
    elif how == "mean" and weighs(call):
        defines["DIVIDED"] = 1
        calls, blocks = divisor_calls(call, facts, params)
        divisor = scratch(1)
    share = 1 / labels.size if how == "mean" else 1.0
    plain = entry == "backward"
    sizes = (labels.size, prod(x.shape[2:]), x.shape[1]) if plain else (labels.size, x.shape[1])
    global_size, local_size = backward_geometry(entry, labels.size, x.shape[1], local)
    kernel = KernelCall(
        family="loss",
        entry=entry,
        args=(
            inp(0),
            inp(1),
            inp(2),
            weights_operand(call),
            divisor,
            out(0),
            *map(i32, sizes),
            ignored_argument(call),
            Scalar(share, accumulator(x.dtype).name),
        ),
        global_size=global_size,
        local_size=local_size,
        defines=defines,
    )
    return Lowering((*calls, kernel), blocks)


def backward_geometry(
    entry: str, labels: int, classes: int, local: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Global and local size: an item per label, or per class and label, neighbours in a line."""
    if entry != "backward_elements":
        return (ceil_to(labels, local),), (local,)
    lanes = min(local, power_of_two(classes))
    lines = min(local // lanes, power_of_two(labels))
    return (ceil_to(classes, lanes), ceil_to(labels, lines)), (lanes, lines)


def lower_rows(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Scores (N, C) by vectors of classes; forward, log probabilities come first."""
    if call.identifier == BACKWARD:
        return lower_backward(call, facts, params, "backward_rows")
    x, labels, _ = scores_of(call)
    width, local = params["WIDTH"], params["LOCAL"]
    log_prob = KernelCall(
        family="softmax",
        entry="rows",
        args=(inp(0), out(1), i32(labels.size), i32(x.shape[1])),
        global_size=(ceil_to(labels.size, local),),
        local_size=(local,),
        defines={"T": c_type(x.dtype), "C": compute_type(x.dtype), "W": width, "KIND": 1},
    )
    rest = lower_forward(call, facts, params, given=True)
    return Lowering((log_prob, *rest.calls), rest.scratch)


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Scores (N, C): log probabilities by a line of work-items each; backward, one per element."""
    if call.identifier == BACKWARD:
        return lower_backward(call, facts, params, "backward_elements")
    x, labels, _ = scores_of(call)
    sizes = (labels.size, x.shape[1])
    log_prob = softmax_groups.group_call((inp(0),), out(1), x.dtype, *sizes, 1, params)
    rest = lower_forward(call, facts, params, given=True)
    return Lowering((log_prob, *rest.calls), rest.scratch)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per label."""
    if call.identifier == BACKWARD:
        return lower_backward(call, facts, params, "backward")
    return lower_forward(call, facts, params)


FAMILY = KernelFamily(
    "loss",
    ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", BACKWARD),
    (
        Variant(
            "rows",
            lower_rows,
            applies_rows,
            {"WIDTH": (16, 8, 4), "LOCAL": (8, 64)},
            units=("cpu",),
        ),
        Variant("groups", lower_groups, applies_rows, softmax_groups.SPACE, units=("gpu",)),
        # Of scores (N, C, ...) neighbouring labels lie side by side: an item for each is right.
        Variant("labels", lower, applies, {"LOCAL": (64, 128, 256)}, units=("gpu",)),
        Variant("naive", lower, applies, {"LOCAL": (16, 64, 256)}),
    ),
)
