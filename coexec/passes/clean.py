"""Remove what does no work: identities, duplicates, unused nodes and initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass


def clean(model: ir.Model) -> None:
    """Merge equal pure nodes and drop nodes that nothing reads; in place.

    Masks drawn at random are told apart by their seeds, so merging never correlates two of them.
    """
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
