"""A training step as one ONNX graph: forward, loss, backward, clipping, optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.autodiff.average import append_average, average_name
from coexec.autodiff.clip import clipped
from coexec.autodiff.losses import Loss
from coexec.autodiff.narrow import cut, joined, narrow_gradient, trained_shape
from coexec.autodiff.optimizers import RATE_TYPE, Optimizer
from coexec.autodiff.reverse import gradients
from coexec.autodiff.selection import Channels, select
from coexec.base.errors import GradientError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import PHASE, ROLE, STATE, STEP, GraphBuilder
from coexec.ops.node import type_of

BACKWARD, OPTIMIZER, FORWARD = "backward", "optimizer", "forward"
RATE, SCALE = "learning_rate", "loss_scale"
ACCUMULATOR = "#gradient"
"""Behind the name of a parameter: the state that sums its gradients over micro-batches."""


@dataclass(frozen=True)
class StepGraph:
    """A training graph and what its inputs and outputs mean.

    ``state`` maps each output that is a new state to the input it replaces; ``initial`` holds the
    first values of those inputs. ``parameters`` are the states that are the model's own
    initializers. ``channels`` tells which output channels of a parameter are trained, where that is
    not all of them. ``labels``, ``rate``, ``step`` and ``loss`` are names ("" where not used), as
    are ``scale``, the input that the loss is multiplied by before it is differentiated, and
    ``magnitude``, the output that is finite where all (unscaled) gradients are. In full, its
    backward pass would keep ``uncompressed_bytes`` of activations. ``early``: large states are
    replaced while the backward pass goes on. ``paging``: the share of what the backward pass needs
    that leaves the device until then.
    """

    model: ir.Model
    state: Mapping[str, str]
    initial: Mapping[str, Array]
    parameters: tuple[str, ...]
    trainable: tuple[str, ...]
    labels: str = ""
    rate: str = ""
    step: str = ""
    loss: str = ""
    prediction: str = ""
    scale: str = ""
    magnitude: str = ""
    gradients: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, Channels] = field(default_factory=dict)
    uncompressed_bytes: int = 0
    early: bool = False
    paging: float = 0.0

    @property
    def watched(self) -> tuple[str, ...]:
        """Outputs that tell whether the numbers of a step are good."""
        return tuple(name for name in (self.loss, self.magnitude) if name)

    @property
    def gate(self) -> tuple[str, ...]:
        """Those that are known by then: with early updates, only what the forward pass makes."""
        return (self.loss,) if self.early else self.watched

    def scalars(self, rate: float, counter: int, scale: float) -> dict[str, Array]:
        """What it is fed beside data, of the learning rate, a number of runs, the loss scale."""
        values: dict[str, Array] = {
            self.rate: np.array(rate, np.float32),
            self.step: np.array(counter, np.int64),
            self.scale: np.array(scale, np.float32),
        }
        return {name: value for name, value in values.items() if name}


def build_step(
    model: ir.Model,
    loss: Loss,
    optimizer: Optimizer,
    *,
    trainable: Sequence[str] = (),
    clip_norm: float | None = None,
    ema: float | None = None,
    scaled: bool = False,
) -> StepGraph:
    """Extend ``model`` (specialised, in training form; it is changed) to a whole training step.

    ``ema`` is the decay of moving averages of all that is trained. ``scaled`` adds an input that
    scales the loss for the backward pass (float16 gradients).
    """
    work = _Step(model, loss, trainable, scaled)
    work.append_updates(optimizer, work.gradients, clip_norm, ema)
    return work.finish()


def build_accumulation(
    model: ir.Model, loss: Loss, *, trainable: Sequence[str] = (), scaled: bool = False
) -> StepGraph:
    """Forward and backward of a micro-batch; gradients are added to states, nothing is updated."""
    work = _Step(model, loss, trainable, scaled)
    work.append_accumulators()
    return work.finish()


def build_update(
    parameters: Mapping[str, Array],
    optimizer: Optimizer,
    micro_batches: int,
    clip_norm: float | None,
    ema: float | None,
    opset: int,
    channels: Mapping[str, Channels] = MappingProxyType({}),
) -> StepGraph:
    """The optimizer alone, on gradients accumulated over ``micro_batches``; clears them.

    Of parameters named in ``channels`` only these output channels have gradients.
    """
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="update")
    work = _Update(ir.Model(graph, ir_version=10), parameters, channels)
    work.append_updates(optimizer, work.mean_gradients(micro_batches), clip_norm, ema)
    work.clear_accumulators()
    return work.finish()


def build_inference(model: ir.Model, states: Mapping[str, str]) -> StepGraph:
    """The model as it is; ``states`` lie on the device, by initializers that they stand for."""
    work = _States(model)
    for name, state in states.items():
        work.as_state(model.graph.initializers[name], state)
    return StepGraph(model, {}, work.initial, tuple(states.values()), ())


def _zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Zeros that take no memory: states on devices are filled from them once."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def accumulator_name(parameter: str) -> str:
    """Name of the state that sums a parameter's gradients over micro-batches."""
    return f"{parameter}{ACCUMULATOR}"


class _States:
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

    def _step_name(self) -> str:
        """Name of the step counter, "" if nothing reads it."""
        marked = (v for v in self.model.graph.inputs if v.metadata_props.get(ROLE) == STEP)
        return next((str(value.name) for value in marked), "")

    def append_updates(
        self,
        optimizer: Optimizer,
        grads: Mapping[str, ir.Value],
        clip_norm: float | None,
        ema: float | None,
    ) -> None:
        """Clip, then update every parameter that has a gradient, and its average."""
        g = self.builder
        g.phase, g.source = OPTIMIZER, ""
        if clip_norm is not None:
            grads = clipped(g, grads, clip_norm)
        rate, step = g.input(RATE, RATE_TYPE), g.step_counter()
        self.rate = str(rate.name)
        for name, gradient in grads.items():
            new = self._update(optimizer, name, gradient, rate, step)
            if ema is not None:
                average = self.add_state(average_name(name), self.initial[name])
                self.replace_state(average, append_average(g, average, new, ema))

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
            slot: self.add_state(f"{name}#{slot}", _zeros(kind.shape, kind.dtype))
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


class _Step(_States):
    """Forward graph, loss and gradients of a model."""

    def __init__(self, model: ir.Model, loss: Loss, trainable: Sequence[str], scaled: bool) -> None:
        super().__init__(model)
        self.scale: ir.Value | None = None
        self.magnitude: ir.Value | None = None
        graph = model.graph
        for node in graph:
            node.metadata_props.setdefault(PHASE, FORWARD)
        if len(graph.outputs) < 1:
            raise GradientError("the model has no output to train on")
        selected = select(model, trainable)
        chosen = [each.value for each in selected]
        self.prediction = loss.prediction(graph.outputs)
        self.builder.phase = FORWARD
        self.loss, self.labels = loss.append(self.builder, self.prediction)
        self.builder.phase = BACKWARD
        found = gradients(graph, self._target(scaled), chosen, self.builder)
        used = [value for value in chosen if found[value] is not None]
        if not used:
            raise GradientError("the loss depends on no trainable parameter of the model")
        self.gradients = {str(v.name): g for v in used if (g := found[v]) is not None}
        self.channels = {
            each.name: each.channels
            for each in selected
            if each.channels is not None and each.name in self.gradients
        }
        for name, channels in self.channels.items():
            self.gradients[name] = narrow_gradient(self.builder, self.gradients[name], channels)
        if self.scale is not None:
            self._unscale(self.scale)
        self.parameters = {str(v.name): self.as_state(v) for v in used}
        self._keep_statistics()
        graph.outputs.insert(0, self.loss)

    def _target(self, scaled: bool) -> ir.Value:
        """What is differentiated: the loss, or a multiple of it."""
        if not scaled:
            return self.loss
        self.scale = self.builder.input(SCALE, TensorType((), np.dtype(np.float32)))
        return self.builder.op("Mul", [self.loss, self.scale])

    def _unscale(self, scale: ir.Value) -> None:
        """Divide all gradients by the scale, and find out whether one of them overflowed."""
        g = self.builder
        g.source = ""
        inverse = g.op("Div", [g.constant(1.0, "float32"), scale])
        self.gradients = {name: g.op("Mul", [v, inverse]) for name, v in self.gradients.items()}
        sums = [g.op("ReduceL1", [value], {"keepdims": 0}) for value in self.gradients.values()]
        # A sum of magnitudes is finite exactly where all of them are (in float32).
        self.magnitude = g.op("Sum", sums) if len(sums) > 1 else sums[0]
        self.model.graph.outputs.append(self.magnitude)

    def _keep_statistics(self) -> None:
        """Running statistics of batch normalisation become states, replaced with the parameters.

        The copy in the optimizer phase keeps a step with a non-finite loss from changing them.
        """
        g = self.builder
        for node in list(self.model.graph):
            if node.op_type != "BatchNormalization" or node.domain or len(node.outputs) < 3:
                continue
            for old, new in zip(node.inputs[3:5], node.outputs[1:3], strict=True):
                if old is not None and old.is_initializer():
                    g.phase, g.source = OPTIMIZER, node.name or node.op_type
                    self.others += (str(old.name),)
                    self.replace_state(self.as_state(old), g.op("Identity", [new]))
        g.phase = BACKWARD

    def append_accumulators(self) -> None:
        g = self.builder
        g.phase = OPTIMIZER
        for name, gradient in self.gradients.items():
            g.source = name
            kind = type_of(gradient)
            total = self.add_state(accumulator_name(name), _zeros(kind.shape, kind.dtype))
            self.replace_state(total, g.op("Add", [total, gradient]))

    def finish(self) -> StepGraph:
        return StepGraph(
            model=self.model,
            state=self.state,
            initial=self.initial,
            parameters=(*self.parameters, *self.others),
            trainable=tuple(self.parameters),
            labels="" if self.labels is None else str(self.labels.name),
            rate=self.rate,
            step=self._step_name(),
            loss=str(self.loss.name),
            prediction=str(self.prediction.name),
            scale=str(self.scale.name) if self.scale is not None else "",
            magnitude=str(self.magnitude.name) if self.magnitude is not None else "",
            gradients={name: str(value.name) for name, value in self.gradients.items()},
            channels=self.channels,
        )


def _layer_of(parameter: ir.Value) -> str:
    """Name of the first forward node that reads a parameter; "" in a graph of updates alone."""
    readers = (node for node, _ in parameter.uses() if node.metadata_props.get(PHASE) == FORWARD)
    return next((str(node.name or node.op_type) for node in readers), "")


class _Update(_States):
    """Optimizer graph over accumulated gradients."""

    def __init__(
        self,
        model: ir.Model,
        parameters: Mapping[str, Array],
        channels: Mapping[str, Channels],
    ) -> None:
        super().__init__(model)
        self.channels = dict(channels)
        for name, value in parameters.items():
            self.parameters[name] = self.add_state(name, value)
            zeros = _zeros(trained_shape(value.shape, channels.get(name)), value.dtype)
            self.gradients[name] = self.add_state(accumulator_name(name), zeros)

    def mean_gradients(self, micro_batches: int) -> dict[str, ir.Value]:
        g = self.builder
        g.phase = OPTIMIZER
        return {
            name: g.op("Mul", [total, g.constant(1.0 / micro_batches, type_of(total).dtype)])
            for name, total in self.gradients.items()
        }

    def clear_accumulators(self) -> None:
        """Zeros, not ``total - total``: an infinite gradient must not stay behind as NaN."""
        g = self.builder
        for total in self.gradients.values():
            kind = type_of(total)
            zero = g.constant(0, kind.dtype)
            shape = g.constant(np.array(kind.shape, np.int64), "int64")
            self.replace_state(total, g.op("Expand", [zero, shape]))

    def finish(self) -> StepGraph:
        return StepGraph(
            model=self.model,
            state=self.state,
            initial=self.initial,
            parameters=tuple(self.parameters),
            trainable=tuple(self.parameters),
            rate=self.rate,
            step=self._step_name(),
        )
