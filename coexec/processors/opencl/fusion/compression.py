"""Batch normalisation keeps its operand and its result as codes itself; gradients read codes.

Forward: ``CompressBlocks`` of either joins the normalisation, which has both in a cache, and that
of its result a maximum pooling. Backward:
``DecompressBlocks`` in front of operands of its gradient is left out, altogether if nobody else
reads what it makes. So is it in front of the gradient of a convolution's weights, unless somebody
reads the whole tensor anyway.
"""

from __future__ import annotations

from dataclasses import replace

from coexec.core.types import OpCall, Region, RegionNode
from coexec.ops.compressed import bits_of
from coexec.ops.opdef import OpDef
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.activated import ACTIVATED, ACTIVATED_GRAD
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.coded import (
    EXPANDING,
    EXPANDING_WEIGHT,
    KEEPING,
    KEEPING_TAPS,
    KEPT_RESULT,
    KEPT_X,
    Coded,
)
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import readers_of
from coexec.processors.opencl.kernels import conv_coded, norm_coded, pool_taps

COMPRESS, DECOMPRESS = "coexec::CompressBlocks", "coexec::DecompressBlocks"
KEEPERS = {
    "BatchNormalization": (KEPT_X, KEPT_RESULT),
    ACTIVATED.identifier: (KEPT_X, KEPT_RESULT),
    "coexec::MaxPoolTaps": (KEPT_RESULT,),
}
"""What may be kept as codes."""
GRADIENTS = {
    "coexec::BatchNormalizationGrad": (0,),
    ACTIVATED_GRAD.identifier: (0, 3),
    "coexec::ConvWeightGrad": (0,),
}
"""Operands that may be codes."""
REFUSALS = {
    "coexec::MaxPoolTaps": pool_taps.refuse_codes,
    "coexec::ConvWeightGrad": conv_coded.refuse,
}
"""Of operators other than normalisations and their gradients, why kernels do not do both."""
FORMS = {"coexec::MaxPoolTaps": KEEPING_TAPS, "coexec::ConvWeightGrad": EXPANDING_WEIGHT}
WEIGHT_GRADIENT = "coexec::ConvWeightGrad"


def fuse_compression(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with codes that normalisations write and their gradients read."""
    if not any(node.call.identifier in (COMPRESS, DECOMPRESS) for node in region.nodes):
        return region
    fusion = _Fusion(region, facts)
    made = [fusion.node(index) for index in range(len(region.nodes))]
    nodes = tuple(n for i, n in enumerate(made) if i not in fusion.taken)
    return _without_unread(replace(region, nodes=nodes))


class _Fusion:
    def __init__(self, region: Region, facts: DeviceFacts) -> None:
        self.region, self.facts = region, facts
        self.readers = readers_of(region)
        self.producer = {name: node for node in region.nodes for name in node.outputs}
        self.taken: set[int] = set()

    def node(self, index: int) -> RegionNode:
        """What stands in the place of a node; others that it does as well are ``taken``."""
        node = self.region.nodes[index]
        kind = node.call.identifier
        if kind not in (*KEEPERS, *GRADIENTS) or self._refused(node):
            return node
        return self.keeping(index, node) if kind in KEEPERS else self.expanding(node)

    def _refused(self, node: RegionNode) -> bool:
        refuse = REFUSALS.get(node.call.identifier, norm_coded.refuse)
        return refuse(node.call, self.facts) is not None

    def keeping(self, index: int, node: RegionNode) -> RegionNode:
        """A node with the compression of its operand and its result."""
        found: dict[int, int] = {}
        for place in KEEPERS[node.call.identifier]:
            name = node.inputs[0] if place == KEPT_X else node.outputs[0]
            others = (i for i in self.readers.get(name, ()) if i not in self.taken)
            where = next((i for i in others if self._compresses(i, before=index)), None)
            if where is not None:
                found[place] = where
        joined = [self.region.nodes[i] for i in found.values()]
        bits = {bits_of(other.call) for other in joined}
        if len(bits) != 1:
            return node
        self.taken.update(found.values())
        own = Coded(replace(node.call, name=""), bits.pop(), tuple(found))
        outputs = (*node.outputs, *(name for other in joined for name in other.outputs))
        return self._fused(KEEPING, own, [node, *joined], node.inputs, outputs)

    def _compresses(self, index: int, before: int) -> bool:
        """Whether a node makes codes that are read behind node ``before`` only."""
        node = self.region.nodes[index]
        readers = (i for name in node.outputs for i in self.readers.get(name, ()))
        return node.call.identifier == COMPRESS and all(i > before for i in readers)

    def expanding(self, node: RegionNode) -> RegionNode:
        """A gradient that reads codes of the operands that were made of codes."""
        found = {
            place: source
            for place in GRADIENTS[node.call.identifier]
            if (source := self.producer.get(node.inputs[place])) is not None
            and source.call.identifier == DECOMPRESS
            and (node.call.identifier != WEIGHT_GRADIENT or self._reads_codes(node.inputs[place]))
        }
        bits = {bits_of(source.call) for source in found.values()}
        if len(bits) != 1:
            return node
        own = Coded(replace(node.call, name=""), bits.pop(), tuple(found))
        words = [
            found[place].inputs[0] if place in found else name
            for place, name in enumerate(node.inputs)
        ]
        inputs = (*words, *(source.inputs[1] for source in found.values()))
        nodes = [*found.values(), node]
        return self._fused(EXPANDING, own, nodes, inputs, node.outputs)

    def _reads_codes(self, name: str) -> bool:
        """Whether nobody needs the whole of an expanded tensor."""
        if name in self.region.outputs:
            return False
        for index in self.readers[name]:
            node = self.region.nodes[index]
            places = {place for place, own in enumerate(node.inputs) if own == name}
            codes = places <= set(GRADIENTS.get(node.call.identifier, ()))
            if not codes or self._refused(node):
                return False
        return True

    def _fused(
        self,
        usual: OpDef,
        own: Coded,
        nodes: list[RegionNode],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> RegionNode:
        types = self.region.types
        kind = FORMS.get(own.call.identifier, usual)
        call = OpCall(
            kind.op_type,
            tuple(types[name] if name else None for name in inputs),
            {"coded": own},
            tuple(types[name] if name else None for name in outputs),
            domain=FUSED,
            name=name_of(nodes),
            output_count=len(outputs),
        )
        layer = nodes[0] if usual is KEEPING else nodes[-1]
        names = provenance_of(nodes)["nodes"]
        return RegionNode(call, inputs, outputs, {**layer.provenance, "nodes": names})


def _without_unread(region: Region) -> Region:
    """``region`` without expansions that nobody reads any more."""
    readers = readers_of(region)
    needed = {*readers, *region.outputs}
    nodes = tuple(
        node
        for node in region.nodes
        if node.call.identifier != DECOMPRESS or node.outputs[0] in needed
    )
    return replace(region, nodes=nodes)
