"""Which nodes take statistics over the whole batch: what forbids to train it in parts."""

from __future__ import annotations

import onnx_ir as ir


def nodes_with_batch_statistics(model: ir.Model) -> list[str]:
    """Names of normalisations that, in training, use mean and variance of their batch."""
    return [
        str(node.name)
        for node in model.graph
        if node.op_type == "BatchNormalization" and not node.domain
    ]
