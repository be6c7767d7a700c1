"""How often the body of a ``Loop`` runs that decides itself when it ends, where that is known.

TensorFlow's loops count their steps and compare: what their condition is computed from are
numbers that no data enter. That part of the body is carried out ahead, by the operators' NumPy
references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.node import attributes_of, constant_of, version_of
from coexec.ops.table import OPERATORS, opdef

MAX_ELEMENTS = 4096
"""Larger results are data, not counts."""

MAX_STEPS = 4096
"""A loop that goes on is not unrolled: its steps would be too many nodes, or it has no end."""

Known = Callable[[ir.Value], Array | None]
"""The value of something outside the loop, ``None`` where it is not known ahead."""


def count_steps(node: ir.Node, most: int, known: Known) -> int | None:
    """Steps of a ``Loop``, at most ``most``; ``None`` where data decide, or there are too many.

    The condition that it is given is taken to be true.
    """
    slice_ = _Slice(node, known)
    if not slice_.add(slice_.body.outputs[0]):
        return None
    states = dict(slice_.first)
    for number in range(min(most, MAX_STEPS)):
        try:
            values = slice_.step(number, states)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None  # malformed or no number: where the body is typed, that is said
        if values is None:
            return None
        if not np.all(values[slice_.body.outputs[0]]):
            return number + 1
        states = {value: values[slice_.results[value]] for value in states}
    return most if most <= MAX_STEPS else None


@dataclass
class _Slice:
    """What the condition of a loop's body is computed from, step by step."""

    node: ir.Node
    known: Known

    def __post_init__(self) -> None:
        self.body = self.node.attributes["body"].as_graph()
        self.nodes: set[ir.Node] = set()
        self.outside: dict[ir.Value, Array] = {}
        self.first: dict[ir.Value, Array] = {}
        inputs = self.body.inputs
        self.results = dict(zip(inputs[2:], self.body.outputs[1:], strict=False))

    def add(self, result: ir.Value) -> bool:
        """Take in all that ``result`` is computed from; ``False`` if data are among it."""
        stack, seen = [result], set()
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            producer = value.producer()
            if producer is not None and producer.graph is self.body:
                if not _countable(producer):
                    return False
                self.nodes.add(producer)
                stack += [operand for operand in producer.inputs if operand is not None]
            elif value in self.results:
                if not self._starts(value):
                    return False
                stack.append(self.results[value])
            elif value not in self.body.inputs:
                array = self.known(value)
                if array is None or array.size > MAX_ELEMENTS:
                    return False
                self.outside[value] = array
        return True

    def _starts(self, state: ir.Value) -> bool:
        """Whether the value of a state before the first step is known."""
        operand = self.node.inputs[2 + list(self.results).index(state)]
        array = None if operand is None else self.known(operand)
        if array is None or array.size > MAX_ELEMENTS:
            return False
        self.first[state] = array
        return True

    def step(self, number: int, states: dict[ir.Value, Array]) -> dict[ir.Value, Array] | None:
        """Values of one step by the states before it; ``None`` where one of them is too large."""
        count, given = self.body.inputs[:2]
        values = {**self.outside, **states, count: np.array(number), given: np.array(True)}
        for node in self.body:
            if node not in self.nodes:
                continue
            found = _results(node, [None if v is None else values[v] for v in node.inputs])
            if found is None:
                return None
            values |= dict(zip(node.outputs, found, strict=False))
        return values


def _countable(node: ir.Node) -> bool:
    """Whether ``node`` can be carried out ahead: alone, and the same each time."""
    found = OPERATORS.get(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
    return node.op_type == "Constant" or (found is not None and not found.random)


def _results(node: ir.Node, operands: Sequence[Array | None]) -> Sequence[Array] | None:
    """What a node makes; ``None`` where that is too large to be a count."""
    constant = constant_of(node.outputs[0])
    if constant is not None:
        return [constant]
    kinds = tuple(None if array is None else TensorType.of(array) for array in operands)
    known = {index: array for index, array in enumerate(operands) if array is not None}
    call = OpCall(
        node.op_type,
        kinds,
        attributes_of(node),
        (),
        known,
        node.domain,
        version_of(node),
        node.name or "",
        len(node.outputs),
    )
    typed = opdef(call).typed(call)
    if any(kind is not None and kind.size > MAX_ELEMENTS for kind in typed.outputs):
        return None
    return [np.asarray(array) for array in opdef(call).reference(typed, operands)]
