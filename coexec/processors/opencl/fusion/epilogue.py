"""Products and convolutions take in the elementwise operators behind them.

A chain joins the operator that makes one of its operands where nobody else reads that one and
whatever else it reads is like it: then a kernel that has an element of the product in a register
finishes it there. Kernels without such a place are followed by the chain's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coexec.core.types import OpCall, Region, RegionNode
from coexec.ops.packed_product import MATMUL_NBITS
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.fusion.chain import CHAIN, FUSED, chain_of
from coexec.processors.opencl.fusion.elementwise import chain_node, name_of
from coexec.processors.opencl.fusion.expressions import can_stand_in_chain
from coexec.processors.opencl.fusion.finished import FINISHED, Finished
from coexec.processors.opencl.fusion.groups import Groups, readers_of, replaced
from coexec.processors.opencl.fusion.integer_matmul import INTEGER_MATMUL

CORES = frozenset(
    {
        *("Conv", "Gemm", "MatMul", "coexec::TransposedMatMul", BIASED.identifier),
        *(MATMUL_NBITS.identifier, INTEGER_MATMUL.identifier),
    }
)
FINISHING = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "ThresholdedRelu", "HardSwish", "HardSigmoid"),
        *("Add", "Sub", "Mul", "Sum", "Max", "Min", "Neg", "Abs"),
    }
)
"""Operators of a few instructions: kernels repeat their text for each register of a tile; longer
ones (exp, erf) would take a multiple of the time to build."""
MOST_STEPS, MOST_TENSORS = 6, 2
BACKWARD = "backward"
"""The phase in which operands are large and wait: sums of gradients over parts of a batch."""


def fuse_epilogues(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with chains inside of the products in front of them."""
    groups, readers = Groups(region), readers_of(region)
    producer = {name: i for i, node in enumerate(region.nodes) for name in node.outputs}
    made: dict[int, RegionNode] = {}
    taken: set[int] = set()
    for index, node in enumerate(region.nodes):
        if node.call.identifier not in CORES or node.outputs[0] in region.outputs:
            continue
        after = readers.get(node.outputs[0], [])
        if len(after) != 1 or after[0] in taken:
            continue
        if node.provenance.get("phase") == BACKWARD and any(
            index < producer.get(name, -1) and _takes_in(region, readers, producer[name])
            for name in region.nodes[after[0]].inputs
        ):
            continue  # the product that comes last: else what this one reads waits for that
        chain = finishing(region, after[0], node, facts)
        if chain is not None and groups.merge((index, after[0])) is not None:
            taken.add(after[0])
            made[index] = finished(node, chain)
    return replaced(region, lambda indices: made[indices[0]], groups)


def _takes_in(region: Region, readers: Mapping[str, list[int]], index: int) -> bool:
    """Whether a node is a product with one reader."""
    node = region.nodes[index]
    return node.call.identifier in CORES and len(readers.get(node.outputs[0], [])) == 1


def finishing(
    region: Region, index: int, core: RegionNode, facts: DeviceFacts
) -> RegionNode | None:
    """The chain that a node is, or could be, if it can finish the result of ``core``."""
    node = region.nodes[index]
    if node.provenance.get("phase") != core.provenance.get("phase"):
        return None
    if node.call.identifier != CHAIN.identifier:
        if node.call.identifier not in FINISHING or not can_stand_in_chain(node.call):
            return None
        node = chain_node(region, index, facts)
    result = region.types[core.outputs[0]]
    alike = all(kind == result for kind in (*node.call.inputs, *node.call.outputs))
    steps = chain_of(node.call).steps
    fits = (
        alike
        and len(node.outputs) == 1
        and len(steps) <= MOST_STEPS
        and len(node.inputs) <= 1 + MOST_TENSORS
        and all(step.call.identifier in FINISHING for step in steps)
    )
    return node if fits else None


def finished(core: RegionNode, chain: RegionNode) -> RegionNode:
    """Both as one node, which bears the name of the product's layer."""
    place = chain.inputs.index(core.outputs[0])
    others = (*chain.inputs[:place], *chain.inputs[place + 1 :])
    kinds = (*chain.call.inputs[:place], *chain.call.inputs[place + 1 :])
    own = Finished(replace(core.call, name=""), replace(chain.call, name=""), place)
    call = OpCall(
        FINISHED.op_type,
        (*core.call.inputs, *kinds),
        {"finished": own},
        chain.call.outputs,
        domain=FUSED,
        name=name_of([core, chain]),
    )
    behind = chain.provenance.get("nodes", chain.call.name)
    names = f"{core.call.name or core.call.op_type},{behind}"
    provenance = {**core.provenance, "nodes": names}
    return RegionNode(call, (*core.inputs, *others), chain.outputs, provenance)
