"""Nodes that change nothing become views, which take no kernel: Dropout outside of training."""

from __future__ import annotations

from dataclasses import replace

from coexec.core.types import OpCall, Region, RegionNode
from coexec.ops.random import in_training
from coexec.processors.opencl.family import DeviceFacts


def pass_through(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` whose nodes without effect are Identity."""
    return replace(region, nodes=tuple(map(_simplest, region.nodes)))


def _simplest(node: RegionNode) -> RegionNode:
    call = node.call
    if call.identifier != "Dropout" or in_training(call) or call.has_output(1):
        return node
    same = OpCall("Identity", call.inputs[:1], outputs=call.outputs[:1], name=call.name)
    return replace(node, call=same, inputs=node.inputs[:1], outputs=node.outputs[:1])
