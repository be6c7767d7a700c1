"""What a loss is: a scalar from a prediction and labels out of ONNX operators.

``labels_type`` says what the labels of a batch look like; ``check_labels`` refuses values that the
loss has no meaning for, before they reach a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from coexec.base.arguments import check_number
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

LABELS = "labels"
"""Name of the input for labels, where the model has none of this name."""


@dataclass(frozen=True)
class Loss(ABC):
    """A differentiable objective, averaged over the batch.

    ``output`` names the model's output that it judges (the first one if empty).
    """

    output: str = field(default="", kw_only=True)

    @property
    def labelled(self) -> bool:
        """Whether a step takes labels beside the inputs of the model."""
        return True

    def prediction(self, outputs: Sequence[ir.Value]) -> ir.Value:
        """The output that the loss judges.

        Raises:
            UsageError: the model has none of that name.
        """
        chosen = [value for value in outputs if value.name == (self.output or outputs[0].name)]
        if not chosen:
            known = ", ".join(str(value.name) for value in outputs)
            raise UsageError(f"the loss is to judge output {self.output!r}; there are: {known}")
        return chosen[0]

    def append(self, g: GraphBuilder, prediction: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """Append the loss, a scalar, and the input of its labels, if it takes some."""
        labels = g.input(LABELS, self.labels_type(type_of(prediction)))
        return self.build(g, prediction, labels), labels

    @abstractmethod
    def labels_type(self, prediction: TensorType) -> TensorType:
        """Type of the labels that go with a prediction."""

    @abstractmethod
    def build(self, g: GraphBuilder, prediction: ir.Value, labels: ir.Value) -> ir.Value:
        """Append the loss; returns a scalar value."""

    def check_labels(self, labels: Array, prediction: TensorType) -> None:
        """Raise :class:`DataError` for labels out of range."""
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise DataError("labels contain NaN or infinity")

    def weight(self, labels: Array) -> float:
        """What a batch with these labels weighs in a mean over batches."""
        return float(len(labels))

    def answers(self, prediction: Array, labels: Array) -> tuple[int, int]:
        """Right answers, and how many there are; none where the loss is not about classes."""
        return 0, 0

    def accuracy(self, prediction: Array, labels: Array) -> float | None:
        """Share of right answers, or ``None`` where there are none to be right."""
        right, count = self.answers(prediction, labels)
        return right / count if count else None


def sum_of(g: GraphBuilder, value: ir.Value) -> ir.Value:
    """The sum of all elements, a scalar."""
    return g.op("ReduceSum", [value], {"keepdims": 0})


def check_weights(name: str, weights: tuple[float, ...]) -> None:
    """Refuse what are no weights: texts, negative ones, or all of them 0.

    Raises:
        UsageError: with the argument's name.
    """
    if not isinstance(weights, tuple):
        raise UsageError(f"{name} is {weights!r}; it has to be a tuple of numbers")
    for weight in weights:
        check_number(name, weight)
    if weights and not any(weights):
        raise UsageError(f"{name} are all 0: nothing would count")
