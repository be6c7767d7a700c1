"""Optimizer steps whose states are kept in 8 bits: Momentum8bit, Adam8bit.

Block-wise dynamic quantisation: Dettmers et al., "8-bit Optimizers via Block-wise Quantization",
2021 (arXiv 2110.02861). A state is a code per element and a scale per block of ``block_size``
elements (the largest magnitude in it). The codes stand for seven decades of magnitudes, each with
twice the steps of the one below. A step reads the codes, computes in float, and writes the nearest
codes. Unlike in the paper a second moment above 0 never becomes 0: the update would be divided by
epsilon alone.

Operands are R, T, X, G, then codes and scales of each state; results X, codes and scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float, widen
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work
from coexec.ops.optim import ADAM, MOMENTUM, Rule, adam, momentum
from coexec.ops.optim_hyper import Hyper, hyper_of

BLOCK = 256
"""Elements that share a scale where a graph does not say otherwise."""

CODE = np.dtype(np.uint8)
DECADES = 7
SIGNED, UNSIGNED = 0, 1


def dynamic_values(unsigned: int) -> Array:
    """What the 256 codes stand for, by code; the largest magnitude is 1.

    Signed: 0, then seven decades of 1, 2, 4 ... 64 values, then 1 (code 128), then the negatives of
    codes 1 to 127. Unsigned: 0, decades of 2, 4 ... 128 values, 1.
    """
    decades = []
    for decade in range(DECADES):
        count = 2 ** (decade + unsigned)
        middles = 0.1 + 0.9 * (np.arange(count) + 0.5) / count
        decades.append(10.0 ** (decade + 1 - DECADES) * middles)
    positive = np.concatenate([[0.0], *decades])
    if unsigned:
        return np.append(positive, 1.0)
    return np.concatenate([positive, [1.0], -positive[1:]])


def dequantize_state(codes: Array, scales: Array, block: int, unsigned: int) -> Array:
    """Values of a state, shaped like its codes, in the type of the scales."""
    values = dynamic_values(unsigned)[codes.reshape(-1)]
    each = np.repeat(scales, block)[: codes.size]
    return np.asarray((values * each).astype(scales.dtype).reshape(codes.shape))


def quantize_state(state: Array, block: int, unsigned: int) -> tuple[Array, Array]:
    """The nearest codes and the scales of a state; the inverse of :func:`dequantize_state`."""
    flat = state.reshape(-1)
    padded = np.pad(flat, (0, -flat.size % block)).reshape(-1, block)
    scales = np.abs(padded).max(axis=1, initial=0)
    relative = padded / np.where(scales > 0, scales, 1)[:, None]
    values = dynamic_values(unsigned)
    order = np.argsort(values)
    middles = (values[order][1:] + values[order][:-1]) / 2
    codes = order[np.searchsorted(middles, relative)]
    if unsigned:
        codes = np.where(relative > 0, np.maximum(codes, 1), codes)
    return codes.reshape(-1)[: flat.size].reshape(state.shape).astype(CODE), scales


def blocks_of(kind: TensorType, block: int) -> int:
    """How many scales a state of this type has."""
    return -(-kind.size // block)


def block_size(call: OpCall) -> int:
    """Elements of a block: attribute ``block_size``."""
    size = int(call.attribute("block_size", BLOCK))
    if size < 1:
        raise ValueError(f"{call.op_type}: block_size must be at least 1, not {size}")
    return size


def hyper_8bit(call: OpCall) -> Hyper:
    """Attributes: those of the operator without ``8bit`` in its name."""
    return hyper_of(replace(call, op_type=call.op_type.removesuffix("8bit")))


def inferring(states: int) -> Callable[[OpCall], Sequence[TensorType]]:
    """Shape rule of a step with so many states."""

    def infer(call: OpCall) -> Sequence[TensorType]:
        hyper_8bit(call)
        if len(call.inputs) != 4 + 2 * states:
            raise ValueError(f"{call.op_type}: needs {4 + 2 * states} operands")
        if call.input(0).size != 1 or call.input(1).size != 1:
            raise ValueError(f"{call.op_type}: R and T must be scalars")
        x, results = call.input(2), [call.input(2)]
        if call.input(3) != x or not is_float(x.dtype):
            raise ValueError(f"{call.op_type}: {call.input(3)} does not belong to {x}")
        for state in range(states):
            codes, scales = call.input(4 + 2 * state), call.input(5 + 2 * state)
            count = blocks_of(x, block_size(call))
            if codes != TensorType(x.shape, CODE):
                raise ValueError(f"{call.op_type}: codes {codes} do not belong to {x}")
            if scales.shape != (count,) or not is_float(scales.dtype):
                raise ValueError(f"{call.op_type}: scales {scales} are not {count} numbers")
            results += [codes, scales]
        return tuple(results)

    return infer


def stepping(
    rule: Rule, unsigned: tuple[int, ...]
) -> Callable[[OpCall, Sequence[Any]], Sequence[Array]]:
    """Reference: ``rule`` between dequantisation and quantisation of each state."""

    def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        block, step = block_size(call), int(np.asarray(operands[1]).reshape(()))
        x, gradient = np.asarray(operands[2]), np.asarray(operands[3])
        stored = [np.asarray(value) for value in operands[4:]]
        states = [
            widen(dequantize_state(codes, scales, block, kind))
            for codes, scales, kind in zip(stored[::2], stored[1::2], unsigned, strict=True)
        ]
        rate = widen(operands[0]).reshape(()).astype(widen(x).dtype)
        new, *moved = rule(hyper_8bit(call), rate, step, widen(x), widen(gradient), *states)
        results = [np.asarray(new).astype(x.dtype)]
        for state, kind, scales in zip(moved, unsigned, stored[1::2], strict=True):
            codes, largest = quantize_state(np.asarray(state), block, kind)
            results += [codes, largest.astype(scales.dtype)]
        return tuple(results)

    return reference


def step_work(flop: int) -> Callable[[OpCall], Work]:
    """``flop`` operations per element, the bytes of operands and results."""

    def work(call: OpCall) -> Work:
        outputs = [kind for kind in call.outputs if kind is not None]
        moved = sum(kind.nbytes for kind in (*call.inputs, *outputs) if kind is not None)
        return Work(flop * call.input(2).size, moved)

    return work


def examples(states: int, *attributes: dict[str, Any]) -> tuple[Example, ...]:
    """Less than a block, whole blocks, and a last one that is not full; first and later steps."""
    rate, first, later = (np.array(v) for v in (np.float32(0.1), np.int64(0), np.int64(3)))
    found = []
    for number, shape in enumerate([(3, 5), (64, 16), (1037,)]):
        kind = TensorType(shape, np.dtype(np.float32))
        state = [Sample(shape, "uint8", 0, 256), Sample((blocks_of(kind, BLOCK),), low=0.1)]
        operands = [Sample(shape), Sample(shape), *(state * states)]
        for chosen in attributes:
            step = later if number else first
            found.append(Example((rate, step, *operands), chosen, outputs=1 + 2 * states))
    return tuple(found)


OPS = (
    OpDef(
        "Momentum8bit",
        inferring(1),
        stepping(momentum, (SIGNED,)),
        domain=COEXEC,
        not_differentiable="an optimizer step ends the graph",
        work=step_work(30),
        examples=examples(1, *MOMENTUM),
        in_place=((0, 2), (1, 4), (2, 5)),
    ),
    OpDef(
        "Adam8bit",
        inferring(2),
        stepping(adam, (SIGNED, UNSIGNED)),
        domain=COEXEC,
        not_differentiable="an optimizer step ends the graph",
        work=step_work(60),
        examples=examples(2, *ADAM),
        in_place=((0, 2), (1, 4), (2, 5), (3, 6), (4, 7)),
    ),
)
