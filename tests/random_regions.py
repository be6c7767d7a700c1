"""Random regions of elementwise operators: what fusing them must not change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.table import OPERATORS

BOOL = np.dtype(np.bool_)
SHAPES = ((67,), (3, 41), (2, 5, 3, 16), (2, 3, 9), (4, 1, 130), (1,), (2, 3, 2, 3, 16))
EXACT = ("Relu", "Neg", "Abs", "Floor", "Sign")
SMOOTH = ("Sigmoid", "Tanh", "Gelu", "HardSwish", "Softplus", "Swish", "LeakyRelu", "Elu")
EXACT_PAIRS = ("Add", "Sub", "Max", "Min")
SMOOTH_PAIRS = ("Mul", "Add", "coexec::GeluGrad", "Mean")
COMPARISONS = ("Greater", "LessOrEqual", "Equal")
CAST_TO_FLOAT, CAST_TO_DOUBLE, CAST_TO_HALF = 1, 11, 10
CODES = {"float32": CAST_TO_FLOAT, "float64": CAST_TO_DOUBLE, "float16": CAST_TO_HALF}


class RegionDice(random.Random):
    """Draws the nodes of a region one after the other.

    ``exact`` operators round as little as possible: however they are grouped, results are the same
    to the bit. The others are continuous, so that another order of rounding stays small.
    """

    def __init__(self, seed: str, exact: bool, dtype: str = "float32") -> None:
        super().__init__(seed)
        self.exact = exact
        self.dtype = np.dtype(dtype)
        self.shape: tuple[int, ...] = self.choice(SHAPES)
        self.types: dict[str, TensorType] = {}
        self.values: dict[str, Array] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[RegionNode] = []
        self.numpy = np.random.default_rng(self.randrange(1 << 32))

    def region(self, nodes: int, outputs: int, state: bool = False) -> Region:
        """So many nodes; a few of their results are outputs, one may replace an input."""
        for _ in range(nodes):
            self.grow()
        made = [node.outputs[0] for node in self.nodes]
        chosen = dict.fromkeys([made[-1], *self.sample(made, min(outputs, len(made)))])
        aliases: dict[str, str] = {}
        if state:
            old = self.operand(self.shape)
            new = self.append("Add", (old, self.number(self.shape)))
            chosen[new] = None
            aliases[new] = old
        return Region(
            tuple(self.nodes),
            tuple(name for name in self.values if name not in self.constants),
            tuple(chosen),
            self.types,
            self.constants,
            aliases,
        )

    def grow(self) -> None:
        """One more node."""
        pick = self.random()
        if pick < 0.3:
            singles = EXACT if self.exact else SMOOTH
            self.append(self.choice(singles), (self.number(self.shape),))
        elif pick < 0.6:
            names = EXACT_PAIRS if self.exact else SMOOTH_PAIRS
            self.pair(self.choice(names))
        elif pick < 0.7:
            bounds = [self.constant(value) for value in (-0.5, 0.75)]
            bounds[self.randrange(2)] = self.choice(("", bounds[0], self.operand(())))
            self.append("Clip", (self.number(self.shape), *bounds))
        elif pick < 0.8:
            mask = self.append(
                self.choice(COMPARISONS), self.shuffled(self.number(self.shape), self.number())
            )
            if self.random() < 0.3:
                self.append("Cast", (mask,), {"to": CODES[self.dtype.name]})
        else:
            condition = self.truth()
            sides = self.shuffled(self.number(self.shape), self.number())
            self.append("Where", (condition, *sides))

    def pair(self, identifier: str) -> None:
        """An operator of two operands, one of which may be broadcast unless it allows none."""
        whole = self.shape if identifier == "coexec::GeluGrad" else None
        self.append(identifier, self.shuffled(self.number(self.shape), self.number(whole)))

    def truth(self) -> str:
        """A boolean: one that was computed, or a logical function of some, or an operand."""
        known = [n.outputs[0] for n in self.nodes if self.types[n.outputs[0]].dtype == BOOL]
        if not known or self.random() < 0.2:
            return self.operand(self.broadcast(), BOOL)
        first, second = self.choice(known), self.choice(known)
        return self.choice(
            (
                lambda: first,
                lambda: self.append("Not", (first,)),
                lambda: self.append(self.choice(("And", "Or", "Xor")), (first, second)),
            )
        )()

    def number(self, shape: tuple[int, ...] | None = None) -> str:
        """A computed value, often; else an operand or a constant that broadcasts to the shape."""
        known = [n.outputs[0] for n in self.nodes if self.types[n.outputs[0]].dtype == self.dtype]
        if known and self.random() < 0.7:
            return self.choice(known[-4:])
        if shape is None and self.random() < 0.3:
            return self.constant(self.choice((0.0, 0.25, 1.5)))
        return self.operand(self.broadcast() if shape is None else shape)

    def broadcast(self) -> tuple[int, ...]:
        """A shape that broadcasts to the region's."""
        own = tuple(self.choice((size, size, 1)) for size in self.shape)
        return own[self.choice((0, 0, self.randrange(len(own) + 1))) :]

    def operand(self, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None) -> str:
        """A new input, or one of its type that is there already."""
        kind = TensorType(shape, dtype or self.dtype)
        known = [n for n in self.values if self.types[n] == kind and n not in self.constants]
        if known and self.random() < 0.5:
            return self.choice(known)
        # Quarters: sums are exact, and equality happens.
        drawn = self.numpy.integers(-8, 9, shape) / 4
        return self.new(np.asarray(drawn > 0 if kind.dtype == BOOL else drawn, kind.dtype))

    def constant(self, value: float) -> str:
        name = self.new(np.asarray(value, self.dtype))
        self.constants[name] = self.values[name]
        return name

    def shuffled(self, *names: str) -> tuple[str, ...]:
        return tuple(self.sample(names, len(names)))

    def append(
        self, identifier: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """A node of one result, typed by its declaration; the result's name."""
        return self.node(identifier, inputs, attributes)[0]

    def node(
        self,
        identifier: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
    ) -> tuple[str, ...]:
        """A node, typed by its declaration; the names of its results."""
        op = OPERATORS[identifier]
        while not inputs[-1]:
            inputs = inputs[:-1]
        constants = {i: self.constants[n] for i, n in enumerate(inputs) if n in self.constants}
        kinds = tuple(self.types[n] if n else None for n in inputs)
        number = len(self.nodes)
        names = tuple(f"t{number}" if i == 0 else f"t{number}.{i}" for i in range(outputs))
        bare = OpCall(
            op.op_type,
            kinds,
            attributes or {},
            constants=constants,
            domain=op.domain,
            version=21,
            name=f"{op.op_type}_{number}",
            output_count=outputs,
        )
        call = op.typed(bare)
        self.nodes.append(RegionNode(call, tuple(inputs), names, {"source": call.name}))
        self.types |= {name: call.output(i) for i, name in enumerate(names)}
        return names

    def new(self, value: Array) -> str:
        """An operand of this value; its name."""
        name = f"x{len(self.values)}"
        self.values[name] = value
        self.types[name] = TensorType.of(value)
        return name


def evaluated(region: Region, values: Mapping[str, Array]) -> dict[str, Array]:
    """All tensors of a region by the operators' references, node after node."""
    found = dict(values)
    for node in region.nodes:
        op = OPERATORS[node.call.identifier]
        operands = [found[name] if name else None for name in node.inputs]
        for name, result in zip(node.outputs, op.reference(node.call, operands), strict=False):
            found[name] = np.asarray(result).astype(region.types[name].dtype)
    return found
