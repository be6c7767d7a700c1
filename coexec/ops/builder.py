"""Appending typed nodes to a graph: every emitted node is checked by its OpDef's shape rule."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, TensorType
from coexec.ops.node import call_of, set_type, type_of
from coexec.ops.table import OPERATORS

PHASE = "coexec.phase"
SOURCE = "coexec.source"
ROLE = "coexec.role"
PIECE = "coexec.piece"
MEETING = "coexec.meeting"
STEP, STATE = "step", "state"
"""Metadata keys: a node's phase (forward, backward, optimizer), the forward node it belongs to,
an input's role, if it is the step counter or lives on devices from one run to the next, a mark of
nodes that only cut or join what a plan divides, and one of values in which processors meet."""


class GraphBuilder:
    """Emits nodes into ``graph`` with unique names and the current provenance.

    Equal constants are shared. ``phase`` and ``source`` may be changed at any time; they mark the
    nodes emitted from then on.
    """

    def __init__(self, graph: ir.Graph, phase: str) -> None:
        self.graph = graph
        self.phase = phase
        self.source = ""
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._taken = {item.name for item in (*_all_values(graph), *graph)}
        self._counter = itertools.count()

    def input(self, name: str, kind: TensorType) -> ir.Value:
        """A new graph input."""
        value = ir.Value(name=self.name(name))
        set_type(value, kind)
        self.graph.inputs.append(value)
        return value

    def step_counter(self) -> ir.Value:
        """The graph input that counts steps; added when first asked for."""
        for value in self.graph.inputs:
            if value.metadata_props.get(ROLE) == STEP:
                return value
        value = self.input(STEP, TensorType((), np.dtype(np.int64)))
        value.metadata_props[ROLE] = STEP
        return value

    def name(self, stem: str) -> str:
        """``stem``, or ``stem_1``, ``stem_2``, ... if it is taken."""
        name = stem
        for number in itertools.count(1):
            if name not in self._taken:
                break
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: np.dtype[Any] | str) -> ir.Value:
        """An initializer holding ``value``."""
        array = np.ascontiguousarray(value, np.dtype(dtype)).reshape(np.shape(value))
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(f"constant_{next(self._counter)}", array)
        return self._constants[key]

    def initializer(self, name: str, array: Array) -> ir.Value:
        """A named initializer."""
        unique = self.name(name)
        value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
        set_type(value, TensorType.of(array))
        self.graph.register_initializer(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output."""
        return self.ops(op_type, inputs, attributes, outputs=1, domain=domain)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Append a node with ``outputs`` outputs, typed by its OpDef."""
        node = ir.node(
            op_type,
            inputs,
            {name: _attribute(name, value) for name, value in (attributes or {}).items()},
            domain=domain,
            num_outputs=outputs,
            name=self.name(f"{self.source or self.phase}/{op_type}"),
            metadata_props={PHASE: self.phase, SOURCE: self.source},
        )
        for value in node.outputs:
            value.name = self.name(f"{node.name}:{value.index()}")
        # The node needs its graph before its call is read: that is where opset versions stand.
        self.graph.append(node)
        self.graph.opset_imports.setdefault(domain, 1)
        call = call_of(node)
        typed = OPERATORS[call.identifier].typed(call)
        for value, kind in zip(node.outputs, typed.outputs, strict=True):
            if kind is not None:
                set_type(value, kind)
        return tuple(node.outputs)

    def type_of(self, value: ir.Value) -> TensorType:
        return type_of(value)


def _attribute(name: str, value: Any) -> Any:
    """Python value to what onnx_ir takes: arrays become tensors, tuples lists.

    Integers are named as such: onnx_ir would ask of each sequence which of its protocols it has,
    which takes longer than all else about a node.
    """
    if isinstance(value, np.ndarray):
        return ir.tensor(value)
    if isinstance(value, (tuple, list)) and value and all(isinstance(x, int) for x in value):
        return ir.AttrInt64s(name, value)
    return list(value) if isinstance(value, tuple) else value


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    produced = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *produced]
