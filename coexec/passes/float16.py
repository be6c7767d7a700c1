"""Inference in float16: casts around what may compute in it, weights converted once.

Inputs and outputs of the graph keep their types. Which operators take part is said in
:mod:`coexec.passes.half_operators`; a node of theirs stays in float32 where a constant that it
reads is none in float16, or where casts would cost more than they give. What is folded is folded
before, in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.ops.builder import PHASE, SOURCE
from coexec.ops.node import CONSTANT_MARK, attributes_of, call_of, constant_of, known_type
from coexec.ops.table import opdef
from coexec.passes.half_operators import (
    BOUNDED,
    CUTS,
    FIRST_RESULT,
    FOLLOWERS,
    ONLY_FIRST,
    PRODUCTS,
    STAYS,
    TABLES,
    UNKNOWN,
)
from coexec.passes.kept import FORWARD

PRECISION = "coexec.precision"
"""Key in a model's metadata: the element type that its inference is to compute in."""
CONVERTED = "coexec.converted"
"""Key in a model's metadata: what became of it, for people."""
SINGLE, HALF = "float32", "float16"
PRECISIONS = (SINGLE, HALF)
LARGEST, LEAST = 65504.0, 2.0**-14
"""Of float16: the largest number, and the least one with all of its bits."""
WORTH = 8
"""A product has so many FLOP for each element that it makes, or that is cast for it."""
FEW = "too little arithmetic for its casts"
READS_SINGLE = "what it reads is in float32"
QUANTISED = "part of a network in 8 bits"


@dataclass(frozen=True)
class Kept:
    """A node that stays in float32, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What became of a model: ``nodes`` compute in float16, ``kept`` do not.

    ``casts`` are nodes between the two, ``weights`` constants that were converted, which now take
    ``weight_bytes``.
    """

    nodes: int
    casts: int
    weights: int
    weight_bytes: int
    kept: tuple[Kept, ...]

    def lines(self) -> list[str]:
        """For people: the sum, then nodes that stay by operator and reason, most first."""
        total = self.nodes + len(self.kept)
        if not total:
            return ["no node computes in float32: the model stays as it is"]
        first = f"{self.nodes} of {total} nodes compute in float16, {self.casts} cast"
        counts = Counter((each.op_type, each.reason) for each in self.kept)
        rest = [f"{count} {name}: {reason}" for (name, reason), count in counts.most_common()]
        return [first, *(f"in float32: {line}" for line in rest)]


def in_precision(model: ir.Model, precision: str) -> ir.Model:
    """``model`` as it is to be inferred in ``precision``: in float16 a copy that says so.

    Sessions, plans and simulations of that copy convert it once its shapes are known.

    Raises:
        UsageError: another precision than :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UsageError(f"precision {precision!r} is unknown for inference; known: {known}")
    if precision == precision_of(model):
        return model
    asked = model.clone()
    asked.metadata_props[PRECISION] = precision
    return asked


def precision_of(model: ir.Model) -> str:
    """What the inference of a model is to compute in, where the model does not say: ``float32``."""
    return model.metadata_props.get(PRECISION, SINGLE)


def as_asked(model: ir.Model) -> Conversion | None:
    """Convert a model of which :func:`in_precision` says so; in place. Others stay as they are.

    What became of it stands in the model, too: see :func:`conversion_lines`.
    """
    if precision_of(model) != HALF:
        return None
    conversion = to_float16(model)
    model.metadata_props[CONVERTED] = "\n".join(conversion.lines())
    return conversion


def conversion_lines(model: ir.Model) -> list[str]:
    """:meth:`Conversion.lines` of a model that was converted, or made of one; else none."""
    return model.metadata_props.get(CONVERTED, "").splitlines()


def to_float16(model: ir.Model) -> Conversion:
    """Let what may compute in float16 do so, with casts around it; in place.

    Values have element types; where shapes are open, products are taken to be worth their casts.
    """
    choice = _Choice(model.graph)
    return _Writer(model.graph, choice).write()


class _Choice:
    """Which nodes of a graph compute in float16; nothing is changed.

    ``chosen`` has the positions of their operands in float16, ``halves`` what they make in it.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.chosen: dict[ir.Node, tuple[int, ...]] = {}
        self.halves: dict[ir.Value, None] = {}
        self.kept: list[Kept] = []
        self._beyond: dict[ir.Value, str] = {}
        self._unfit: dict[ir.Value, str] = {}
        for node in graph:
            self._visit(node)

    def _visit(self, node: ir.Node) -> None:
        results = [value for value in node.outputs if value.name and is_single(value)]
        operands = [value for value in node.inputs if value is not None and is_single(value)]
        if node.op_type == "Cast" or not operands:
            return
        self._note_range(node, operands, results)
        reason = self._reason(node)
        if reason:
            self.kept.append(Kept(str(node.name), node.op_type, reason))
            return
        self.chosen[node] = _positions(node)
        self.halves.update(dict.fromkeys(results[:1] if node.op_type in FIRST_RESULT else results))

    def _note_range(self, node: ir.Node, operands: list[ir.Value], results: list[ir.Value]) -> None:
        """Results are as far beyond float16's range as operands are."""
        if node.op_type in BOUNDED or node.op_type == "Clip":
            return
        constants = () if node.op_type in CUTS else operands
        found = [self._beyond.get(value, "") for value in operands]
        found += [text for value in constants if (text := self._misfit(value)).endswith(BEYOND)]
        text = next((each for each in found if each), "")
        if text:
            self._beyond.update(dict.fromkeys(results, text))

    def _reason(self, node: ir.Node) -> str:
        """Why a node stays in float32; nothing if it does not."""
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        if name not in PRODUCTS | FOLLOWERS:
            return STAYS.get(name, UNKNOWN)
        read = [value for i in _positions(node) if (value := node.inputs[i]) is not None]
        data = [value for value in read if constant_of(value) is None]
        beyond = next((self._beyond[value] for value in data if value in self._beyond), "")
        if beyond:
            return beyond
        reason = self._of_product(node, data) if name in PRODUCTS else self._of_follower(node, data)
        return reason or self._of_constants(node, read)

    def _of_product(self, node: ir.Node, data: list[ir.Value]) -> str:
        makers = [value.producer() for value in node.inputs if value is not None]
        if any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
            return QUANTISED
        cast = [value for value in data if value not in self.halves]
        kinds = [*(v for v in node.inputs if v is not None), *(v for v in node.outputs if v.name)]
        if any(known_type(value) is None for value in kinds):
            return ""
        call = call_of(node)
        touched = sum(_elements(value) for value in (*cast, *node.outputs))
        return "" if opdef(call).work(call).flop >= WORTH * touched else FEW

    def _of_follower(self, node: ir.Node, data: list[ir.Value]) -> str:
        if node.op_type.startswith("Scatter") and _adds(node):
            return "it adds up where it writes"
        if not data:
            return "" if node.op_type in TABLES else READS_SINGLE
        halves = sum(_elements(value) for value in data if value in self.halves)
        return "" if 2 * halves >= sum(map(_elements, data)) and halves else READS_SINGLE

    def _of_constants(self, node: ir.Node, read: list[ir.Value]) -> str:
        found = [text for value in read if (text := self._misfit(value))]
        if node.op_type in CUTS:
            found = [text for text in found if not text.endswith(BEYOND)]
        return found[0] if found else ""

    def _misfit(self, value: ir.Value) -> str:
        """Why a constant is none in float16."""
        if value not in self._unfit:
            array = constant_of(value)
            self._unfit[value] = "" if array is None else _misfit(array)
        return self._unfit[value]


BEYOND = "is beyond float16's range"
TOO_SMALL = "is too small for float16"


def _misfit(array: Array) -> str:
    """Why an array of float32 is none in float16: by its largest finite magnitude."""
    largest = _largest(array)
    if largest > LARGEST:
        return f"a constant of {largest:.3g} {BEYOND}"
    return f"a constant of {largest:.3g} {TOO_SMALL}" if 0.0 < largest < LEAST else ""


def _largest(array: Array) -> float:
    """Largest finite magnitude; of weights, which are finite, without a copy."""
    if not array.size:
        return 0.0
    bounds = float(array.min()), float(array.max())
    if not np.isfinite(bounds).all():
        return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    return max(abs(bound) for bound in bounds)


def is_single(value: ir.Value) -> bool:
    """Whether a value is known to be of float32."""
    return value.dtype == ir.DataType.FLOAT


def _positions(node: ir.Node) -> tuple[int, ...]:
    """Operands that are of float16 if the node computes in it."""
    places = enumerate(node.inputs)
    found = tuple(i for i, value in places if value is not None and is_single(value))
    return found[:1] if node.op_type in ONLY_FIRST else found


def _adds(node: ir.Node) -> bool:
    return bool(attributes_of(node).get("reduction", "none") != "none")


def _elements(value: ir.Value) -> int:
    """Elements of a value, as far as its sizes are known."""
    shape = value.shape
    return 1 if shape is None else prod(size for size in shape.dims if isinstance(size, int))


class _Writer:
    """Carries out a choice."""

    def __init__(self, graph: ir.Graph, choice: _Choice) -> None:
        self.graph = graph
        self.choice = choice
        self.narrow: dict[ir.Value, ir.Value] = {}
        self.casts = 0
        self.weights: list[Array] = []
        self._names = set(_names(graph))

    def write(self) -> Conversion:
        halves = self.choice.halves
        for node, positions in self.choice.chosen.items():
            for position in positions:
                value = node.inputs[position]
                assert value is not None
                if value not in halves:
                    node.replace_input_with(position, self._narrowed(value))
        for value in halves:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            self._widen(value)
        return Conversion(
            nodes=len(self.choice.chosen),
            casts=self.casts,
            weights=len(self.weights),
            weight_bytes=sum(array.nbytes for array in self.weights),
            kept=tuple(self.choice.kept),
        )

    def _narrowed(self, value: ir.Value) -> ir.Value:
        """A value of float32 in float16, converted once."""
        if value not in self.narrow:
            array = constant_of(value)
            made = self._cast(value, ir.DataType.FLOAT16) if array is None else None
            self.narrow[value] = self._weight(value) if made is None else made
        return self.narrow[value]

    def _weight(self, value: ir.Value) -> ir.Value:
        array = constant_of(value)
        assert array is not None
        with np.errstate(over="ignore"):  # of constants that may become infinite
            half = array.astype(np.float16)
        self.weights.append(half)
        name = self._name(f"{value.name}.float16")
        made = ir.Value(
            name=name,
            const_value=ir.tensor(half, name=name),
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=ir.Shape(half.shape),
        )
        if CONSTANT_MARK in value.metadata_props:
            made.metadata_props[CONSTANT_MARK] = value.metadata_props[CONSTANT_MARK]
        self.graph.register_initializer(made)
        return made

    def _widen(self, value: ir.Value) -> None:
        """Readers of float32 alone get a value of float16 cast back, outputs under its name."""
        readers = [use for use in value.uses() if not self._reads_half(*use)]
        outputs = [i for i, output in enumerate(self.graph.outputs) if output is value]
        if not readers and not outputs:
            return
        wide = self._cast(value, ir.DataType.FLOAT)
        for node, position in readers:
            node.replace_input_with(position, wide)
        for position in outputs:
            self.graph.outputs[position] = wide
        if outputs:
            wide.name, value.name = value.name, wide.name

    def _reads_half(self, node: ir.Node, position: int) -> bool:
        return node.op_type == "Cast" or position in self.choice.chosen.get(node, ())

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """A Cast right behind what makes ``value``, or in front of all."""
        producer = value.producer()
        name = self._name(f"{value.name}.{HALF if to == ir.DataType.FLOAT16 else SINGLE}")
        source = str(value.name if producer is None else producer.name)
        marks = {PHASE: FORWARD, SOURCE: source}
        node = ir.node("Cast", [value], {"to": int(to)}, name=name, metadata_props=marks)
        made = node.outputs[0]
        made.name = self._name(name)
        made.type, made.shape = ir.TensorType(to), value.shape
        if producer is not None:
            self.graph.insert_after(producer, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        self.casts += 1
        return made

    def _name(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


def _names(graph: ir.Graph) -> Iterator[str]:
    values: Iterable[ir.Value] = (*graph.inputs, *graph.initializers.values())
    yield from (str(value.name) for value in values)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield str(node.name)
        yield from (str(value.name) for value in node.outputs)
