"""Remove what does no work: identities, duplicates, unused nodes and initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from coexec.ops.builder import PHASE
from coexec.passes.rematerialise import RECOMPUTE

OWN = "coexec.own"
"""An attribute that keeps a node apart from its equals for a while."""


def clean(model: ir.Model) -> None:
    """Merge equal pure nodes and drop nodes that nothing reads; in place.

    Masks drawn at random are told apart by their seeds, so merging never correlates two of them.
    Repetitions (phase ``recompute``) are there on purpose: they are not merged.
    """
    repeated = [n for n in model.graph if n.metadata_props.get(PHASE) == RECOMPUTE]
    for number, node in enumerate(repeated):
        node.attributes[OWN] = ir.AttrInt64(OWN, number)
    CommonSubexpressionEliminationPass()(model)
    for node in repeated:
        del node.attributes[OWN]
    RemoveUnusedNodesPass()(model)
