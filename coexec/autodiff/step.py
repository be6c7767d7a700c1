"""A training step as one ONNX graph: forward, loss, backward, clipping, optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from coexec.autodiff.losses import Loss
from coexec.autodiff.narrow import narrow_gradient, trained_shape
from coexec.autodiff.reverse import gradients
from coexec.autodiff.selection import Channels, select
from coexec.autodiff.states import BACKWARD, FORWARD, OPTIMIZER, States, UpdateRule, zero_state
from coexec.base.errors import GradientError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import PHASE
from coexec.ops.magnitude import MAGNITUDE
from coexec.ops.node import type_of
from coexec.ops.opdef import COEXEC

HALF = np.dtype(np.float16)
SCALE, SHARE = "loss_scale", "share"
ACCUMULATOR = "#gradient"
"""Behind the name of a parameter: the state that sums its gradients over micro-batches."""


@dataclass(frozen=True)
class StepGraph:
    """A training graph and what its inputs and outputs mean.

    ``state`` maps each output that is a new state to the input it replaces; ``initial`` holds the
    first values of those inputs. ``parameters`` are the states that are the model's own
    initializers. ``channels`` tells which output channels of a parameter are trained, where that is
    not all of them. ``labels``, ``rate``, ``step`` and ``loss`` are names ("" where not used), as
    are ``scale`` and ``share``, inputs that the loss is multiplied by before it is differentiated
    (gradients are divided by the scale again), and ``magnitude``, the output that is finite where
    all (unscaled) gradients are. In full, its backward pass would keep ``uncompressed_bytes`` of
    activations. ``early``: large states are replaced while the backward pass goes on. ``paging``:
    the share of what the backward pass needs that leaves the device until then. ``workspace``:
    bytes beyond which kernels are to work in less (0: none are).
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
    share: str = ""
    magnitude: str = ""
    gradients: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, Channels] = field(default_factory=dict)
    uncompressed_bytes: int = 0
    early: bool = False
    paging: float = 0.0
    workspace: int = 0

    @property
    def watched(self) -> tuple[str, ...]:
        """Outputs that tell whether the numbers of a step are good."""
        return tuple(name for name in (self.loss, self.magnitude) if name)

    @property
    def gate(self) -> tuple[str, ...]:
        """Those that are known by then: with early updates, only what the forward pass makes."""
        return (self.loss,) if self.early else self.watched

    def scalars(
        self, rate: float, counter: int, scale: float, share: float = 1.0
    ) -> dict[str, Array]:
        """What it is fed beside data: learning rate, number of runs, loss scale, part's share."""
        values: dict[str, Array] = {
            self.rate: np.array(rate, np.float32),
            self.step: np.array(counter, np.int64),
            self.scale: np.array(scale, np.float32),
        }
        if self.share:
            kind = next(type_of(v) for v in self.model.graph.inputs if v.name == self.share)
            values[self.share] = np.array(share, kind.dtype)
        return {name: value for name, value in values.items() if name}


def build_step(
    model: ir.Model,
    loss: Loss,
    rule: UpdateRule,
    *,
    trainable: Sequence[str] = (),
    scaled: bool = False,
) -> StepGraph:
    """Extend ``model`` (specialised, in training form; it is changed) to a whole training step.

    ``scaled`` adds an input that scales the loss for the backward pass (float16 gradients).
    """
    work = _Step(model, loss, trainable, scaled)
    work.append_updates(rule)
    return work.finish()


def build_accumulation(
    model: ir.Model, loss: Loss, *, trainable: Sequence[str] = (), scaled: bool = False
) -> StepGraph:
    """Forward and backward of a micro-batch; gradients are added to states, nothing is updated.

    An input says what share of the whole batch's loss that of the part is.
    """
    work = _Step(model, loss, trainable, scaled, partial=True)
    work.append_accumulators()
    return work.finish()


def build_update(
    parameters: Mapping[str, Array],
    rule: UpdateRule,
    opset: int,
    channels: Mapping[str, Channels] = MappingProxyType({}),
) -> StepGraph:
    """The optimizer alone, on gradients added up over the parts of a batch; clears them.

    Of parameters named in ``channels`` only these output channels have gradients.
    """
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="update")
    work = _Update(ir.Model(graph, ir_version=10), parameters, channels)
    work.append_updates(rule)
    work.clear_accumulators()
    return work.finish()


def build_inference(model: ir.Model, states: Mapping[str, str]) -> StepGraph:
    """The model as it is; ``states`` lie on the device, by initializers that they stand for."""
    work = States(model)
    for name, state in states.items():
        work.read_state(model.graph.initializers[name], state)
    return StepGraph(model, {}, work.initial, tuple(states.values()), ())


def accumulator_name(parameter: str) -> str:
    """Name of the state that sums a parameter's gradients over micro-batches."""
    return f"{parameter}{ACCUMULATOR}"


class _Step(States):
    """Forward graph, loss and gradients of a model."""

    def __init__(
        self,
        model: ir.Model,
        loss: Loss,
        trainable: Sequence[str],
        scaled: bool,
        partial: bool = False,
    ) -> None:
        super().__init__(model)
        self.scale: ir.Value | None = None
        self.share: ir.Value | None = None
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
        found = gradients(graph, self._target(scaled, partial), chosen, self.builder)
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
            self._unscale(self.scale, BACKWARD if partial else OPTIMIZER)
        self.parameters = {str(v.name): self.as_state(v) for v in used}
        self._keep_statistics()
        graph.outputs.insert(0, self.loss)

    def _target(self, scaled: bool, partial: bool) -> ir.Value:
        """What is differentiated: the loss, or a multiple of it."""
        g, target = self.builder, self.loss
        if partial:
            self.share = g.input(SHARE, type_of(target))
            target = g.op("Mul", [target, self.share])
        if scaled:
            self.scale = g.input(SCALE, TensorType((), np.dtype(np.float32)))
            target = g.op("Mul", [target, self.scale])
        return target

    def _unscale(self, scale: ir.Value, phase: str) -> None:
        """Find out whether a gradient overflowed; divide all of them by the scale.

        The division is of ``phase``, as are conversions from float16 in front of it: with those in
        the optimizer's, gradients wait for their updates in 16 bits.
        """
        g = self.builder
        g.source = ""
        sums = [
            g.op(MAGNITUDE, [_unconverted(value)], domain=COEXEC)
            for value in self.gradients.values()
        ]
        self.magnitude = g.op("Sum", sums) if len(sums) > 1 else sums[0]
        self.model.graph.outputs.append(self.magnitude)
        g.phase = phase
        inverse = g.op("Div", [g.constant(1.0, "float32"), scale])
        for name, value in self.gradients.items():
            node = value.producer()
            if node is not None and _unconverted(value) is not value:
                node.metadata_props[PHASE] = phase
            self.gradients[name] = g.op("Mul", [value, inverse])
        g.phase = BACKWARD

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
            total = self.add_state(accumulator_name(name), zero_state(kind.shape, kind.dtype))
            self.replace_state(total, g.op("Add", [total, gradient]))

    def finish(self) -> StepGraph:
        return StepGraph(
            model=self.model,
            state=self.state,
            initial=self.initial,
            parameters=(*self.parameters, *self.others),
            trainable=tuple(self.parameters),
            labels=_name(self.labels),
            rate=self.rate,
            step=self.step_name(),
            loss=str(self.loss.name),
            prediction=str(self.prediction.name),
            scale=_name(self.scale),
            share=_name(self.share),
            magnitude=_name(self.magnitude),
            gradients={name: str(value.name) for name, value in self.gradients.items()},
            channels=self.channels,
        )


def _unconverted(value: ir.Value) -> ir.Value:
    """What ``value`` was in float16, if it is a conversion of that; else itself."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return source if source is not None and type_of(source).dtype == HALF else value


def _name(value: ir.Value | None) -> str:
    """Name of a value, "" if there is none."""
    return "" if value is None else str(value.name)


class _Update(States):
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
            zeros = zero_state(trained_shape(value.shape, channels.get(name)), value.dtype)
            self.gradients[name] = self.add_state(accumulator_name(name), zeros)

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
            step=self.step_name(),
        )
