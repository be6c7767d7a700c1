"""A warning of models that end in what their loss applies itself."""

from __future__ import annotations

import logging

import onnx_ir as ir

from coexec.autodiff.losses import BinaryCrossEntropyWithLogits, SoftmaxCrossEntropy
from coexec.training.indices import SAME_VALUES
from coexec.training.trainer import Trainer

log = logging.getLogger(__name__)
APPLIED = {SoftmaxCrossEntropy: "Softmax", BinaryCrossEntropyWithLogits: "Sigmoid"}
"""Losses of logits, and what they make probabilities of these with."""


def tell_probabilities(trainer: Trainer) -> None:
    """Warn of probabilities under a loss of logits: they are squeezed twice and learn slowly."""
    applied = APPLIED.get(type(trainer.loss))
    output = trainer.loss.prediction(trainer.model.graph.outputs)
    node = _source(output)
    if applied is not None and node is not None and node.op_type == applied:
        log.warning(
            "output %r comes from %s %r, which this loss applies itself: it takes logits. Export "
            "the model without it, or judge an output before it (--loss-output)",
            output.name,
            applied,
            node.name,
        )


def _source(value: ir.Value) -> ir.Node | None:
    """The node that computes a value, before what only changes its form."""
    node = value.producer()
    while node is not None and node.op_type in SAME_VALUES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node
