"""Graphs with states under construction: inputs that outputs replace, updates by an optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.autodiff.average import append_average, average_name, average_type, begun
from coexec.autodiff.clip import clamped, clipped
from coexec.autodiff.narrow import cut, joined
from coexec.autodiff.optimizers import RATE_TYPE, Optimizer
from coexec.autodiff.selection import Channels
from coexec.core.types import Array, TensorType
from coexec.ops.builder import PHASE, ROLE, STATE, STEP, GraphBuilder
from coexec.ops.node import type_of

BACKWARD, OPTIMIZER, FORWARD = "backward", "optimizer", "forward"
RATE = "learning_rate"


def zero_state(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Zeros that take no memory: states on devices are filled from them once."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer with what is done before and after.

    Gradients are clipped, each number by ``clip_value`` and then all by the joint norm
    ``clip_norm``; ``ema`` is the decay of moving averages of what was updated.
    """

    optimizer: Optimizer
    clip_norm: float | None = None
    clip_value: float | None = None
    ema: float | None = None

    def clipped(self, g: GraphBuilder, grads: Mapping[str, ir.Value]) -> Mapping[str, ir.Value]:
        """Append the clipping of gradients by their parameters' names."""
        if self.clip_value is not None:
            grads = clamped(g, grads, self.clip_value)
        return grads if self.clip_norm is None else clipped(g, grads, self.clip_norm)


class States:
    """A graph under construction with its state inputs and outputs."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.builder = GraphBuilder(model.graph, BACKWARD)
        self.parameters: dict[str, ir.Value] = {}
        self.gradients: dict[str, ir.Value] = {}
        self.channels: dict[str, Channels] = {}
        self.state: dict[str, str] = {}
        self.initial: dict[str, Array] = {}
        self.others: tuple[str, ...] = ()
        self.rate = ""
        self.rates: dict[float, ir.Value] = {}

    def step_name(self) -> str:
        """Name of the step counter, "" if nothing reads it."""
        marked = (v for v in self.model.graph.inputs if v.metadata_props.get(ROLE) == STEP)
        return next((str(value.name) for value in marked), "")

    def append_updates(self, rule: UpdateRule) -> None:
        """Clip, then update every parameter that has a gradient, and its average."""
        g = self.builder
        g.phase, g.source = OPTIMIZER, ""
        grads = rule.clipped(g, self.gradients)
        rate, step = g.input(RATE, RATE_TYPE), g.step_counter()
        self.rate = str(rate.name)
        for name, gradient in grads.items():
            new = self._update(rule.optimizer, name, gradient, rate, step)
            if rule.ema is not None:
                average = self.add_state(average_name(name), begun(self.initial[name]))
                self.replace_state(average, append_average(g, average, new, rule.ema))

    def _update(
        self, optimizer: Optimizer, name: str, gradient: ir.Value, rate: ir.Value, step: ir.Value
    ) -> ir.Value:
        """The new value of a parameter, of which some channels alone may be trained."""
        g, whole, channels = self.builder, self.parameters[name], self.channels.get(name)
        g.source = _layer_of(whole) or name
        part = whole if channels is None else cut(g, whole, channels)
        kind = type_of(whole)
        rate = self._scaled(rate, optimizer.rate_factor(name, kind))
        optimizer = optimizer.of(name, kind)
        inputs = {
            slot: self.add_state(f"{name}#{slot}", zero_state(kind.shape, kind.dtype))
            for slot, kind in optimizer.slots(type_of(part)).items()
        }
        update = optimizer.update(g, part, gradient, inputs.__getitem__, rate, step)
        new = update.parameter
        new = new if channels is None else joined(g, whole, new, channels)
        self.replace_state(whole, new)
        for slot, value in update.slots.items():
            self.replace_state(inputs[slot], value)
        return new

    def _scaled(self, rate: ir.Value, factor: float) -> ir.Value:
        """The learning rate of parameters that have a factor on it."""
        if factor == 1:
            return rate
        if factor not in self.rates:
            g = self.builder
            self.rates[factor] = g.op("Mul", [rate, g.constant(factor, RATE_TYPE.dtype)])
        return self.rates[factor]

    def add_state(self, name: str, initial: Array) -> ir.Value:
        """A state input with its first value."""
        value = self.builder.input(name, TensorType.of(initial))
        value.metadata_props[ROLE] = STATE
        self.initial[str(value.name)] = initial
        return value

    def replace_state(self, old: ir.Value, new: ir.Value) -> None:
        """Declare ``new`` as the next value of state ``old``."""
        self.state[str(new.name)] = str(old.name)
        self.model.graph.outputs.append(new)

    def as_state(self, initializer: ir.Value, state: str = "") -> ir.Value:
        """Turn an initializer into a state input of the same name, or of the name ``state``."""
        graph = self.model.graph
        assert initializer.const_value is not None
        assert initializer.name is not None
        array = initializer.const_value.numpy()
        del graph.initializers[initializer.name]
        initializer.const_value = None
        initializer.name = state or initializer.name
        self.initial[initializer.name] = array
        initializer.metadata_props[ROLE] = STATE
        if initializer not in graph.inputs:
            graph.inputs.append(initializer)
        return initializer

    def read_state(self, initializer: ir.Value, state: str) -> None:
        """Have what reads an initializer read a state: itself, or its average in its own type."""
        graph = self.model.graph
        kind = type_of(initializer)
        if state != average_name(str(initializer.name)) or average_type(kind) == kind:
            self.as_state(initializer, state)
            return
        assert initializer.const_value is not None
        average = self.add_state(state, begun(initializer.const_value.numpy()))
        value = self.builder.op("Cast", [average], {"to": ir.DataType.from_numpy(kind.dtype)})
        cast = value.producer()
        assert cast is not None
        graph.remove(cast)
        graph.insert_before(graph[0], cast)
        initializer.replace_all_uses_with(value)
        del graph.initializers[str(initializer.name)]


def _layer_of(parameter: ir.Value) -> str:
    """Name of the first forward node that reads a parameter; "" in a graph of updates alone."""
    readers = (node for node, _ in parameter.uses() if node.metadata_props.get(PHASE) == FORWARD)
    return next((str(node.name or node.op_type) for node in readers), "")
