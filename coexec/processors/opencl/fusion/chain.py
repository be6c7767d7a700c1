"""A chain: elementwise operators over one shape, computed by one kernel without memory between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import OpDef, Work
from coexec.ops.table import OPERATORS

FUSED = "coexec.opencl"
"""Domain of the operators that stand in compiled regions of this processor and nowhere else."""

MAX_OPERANDS, MAX_RESULTS = 8, 4
"""Tensors that a chain reads and writes: enough for every pattern seen, few enough for registers
and for the 1024 bytes of arguments that every device takes."""


@dataclass(frozen=True)
class Source:
    """Where a step's operand comes from: operand, number or earlier step ``index`` of the chain."""

    kind: Literal["operand", "number", "step"]
    index: int


@dataclass(frozen=True)
class ChainStep:
    """One operator of a chain; ``sources`` has ``None`` where an optional operand is absent."""

    call: OpCall
    sources: tuple[Source | None, ...]


@dataclass(frozen=True)
class Chain:
    """Steps in order, the steps whose results leave the chain, and its constants of one element."""

    steps: tuple[ChainStep, ...]
    results: tuple[int, ...]
    numbers: tuple[float, ...] = ()


def chain_of(call: OpCall) -> Chain:
    """The chain of a fused call."""
    chain = call.attributes["chain"]
    assert isinstance(chain, Chain)
    return chain


def infer(call: OpCall) -> Sequence[TensorType]:
    """The types of the steps whose results leave the chain."""
    chain = chain_of(call)
    return tuple(chain.steps[index].call.output(0) for index in chain.results)


def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Step after step in NumPy."""
    chain = chain_of(call)
    values: list[Array] = []

    def value(step: ChainStep, position: int) -> Any:
        source = step.sources[position]
        if source is None:
            return None
        if source.kind == "number":
            kind = step.call.input(position)
            return np.full(kind.shape, chain.numbers[source.index], kind.dtype)
        return (operands if source.kind == "operand" else values)[source.index]

    for step in chain.steps:
        own = [value(step, position) for position in range(len(step.sources))]
        values.append(np.asarray(OPERATORS[step.call.identifier].reference(step.call, own)[0]))
    return tuple(values[index] for index in chain.results)


def work(call: OpCall) -> Work:
    """Arithmetic of all steps; operands are read once, results written once."""
    steps = (step.call for step in chain_of(call).steps)
    flop = sum(OPERATORS[step.identifier].work(step).flop for step in steps)
    kinds = (*call.inputs, *call.outputs)
    return Work(flop, sum(kind.nbytes for kind in kinds if kind is not None))


CHAIN = OpDef(
    "Chain",
    infer,
    reference,
    domain=FUSED,
    not_differentiable="made after differentiation",
    work=work,
    # A work-item reads all its elements before it writes any; a pair whose types differ (a
    # broadcast operand) is never taken.
    in_place=tuple((o, i) for o in range(MAX_RESULTS) for i in range(MAX_OPERANDS)),
)
