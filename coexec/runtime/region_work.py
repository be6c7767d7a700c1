"""Which nodes of a model each launch of a placed graph computes, or cuts and joins for."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.ops.builder import PIECE, SOURCE
from coexec.runtime.host_pieces import host_pieces
from coexec.runtime.partition import Partitioning, partition


@dataclass(frozen=True)
class RegionWork:
    """A region by what it does.

    ``nodes`` are names of nodes of the model, each with the operator that cuts or joins for it
    (``""``: it is computed), in their order.
    """

    processor: str
    nodes: tuple[tuple[str, str], ...]


def region_work(graph: ir.Graph, plan: Plan) -> tuple[RegionWork, ...]:
    """The regions of an inference, in the order in which they are launched.

    ``graph`` is what :func:`coexec.runtime.lower.lower` is given with the ``plan``, without states.
    """
    skipped = host_pieces(graph, plan, ()).nodes
    parts = partition(graph, Partitioning(plan, skipped=skipped))
    return tuple(RegionWork(each.processor, tuple(map(_work, each.nodes))) for each in parts)


def _work(node: ir.Node) -> tuple[str, str]:
    source = node.metadata_props.get(SOURCE) or str(node.name)
    return source, node.metadata_props.get(PIECE, "")
