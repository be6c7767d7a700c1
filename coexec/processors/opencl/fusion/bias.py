"""Products of matrices take in the vector that is added to each of their rows.

Exporters write a linear layer on more than two axes as MatMul and Add. The kernels of Gemm add a
vector where they store a result; the fused operator is MatMul with that operand.
"""

from __future__ import annotations

from dataclasses import replace

from coexec.core.types import Region, RegionNode, TensorType
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import Groups, readers_of, replaced


def fuse_bias(region: Region, _facts: DeviceFacts) -> Region:
    """``region`` with additions of vectors inside of the products in front of them."""
    groups, readers = Groups(region), readers_of(region)
    made: dict[int, RegionNode] = {}
    for index, node in enumerate(region.nodes):
        if node.call.identifier != "MatMul" or node.outputs[0] in region.outputs:
            continue
        after = readers.get(node.outputs[0], [])
        if len(after) != 1:
            continue
        vector = added_vector(region, node, region.nodes[after[0]])
        if vector is not None and groups.merge((index, after[0])) is not None:
            made[index] = biased(region, node, region.nodes[after[0]], vector)
    return replaced(region, lambda indices: made[indices[0]], groups)


def added_vector(region: Region, product: RegionNode, other: RegionNode) -> str | None:
    """The vector along rows of ``product``'s result that ``other`` adds to it, if it is that."""
    if other.call.identifier != "Add" or product.call.input(1).rank < 2:
        return None
    if product.provenance.get("phase") != other.provenance.get("phase"):
        return None
    (result,) = product.outputs
    first, second = other.inputs
    name = second if first == result else first
    return name if _is_row(region.types[name], region.types[result]) else None


def _is_row(vector: TensorType, result: TensorType) -> bool:
    """Whether it has an element for each column, and the same ones for each row."""
    columns = result.shape[-1] if result.rank > 1 else 0
    alike = vector.dtype == result.dtype and vector.rank <= result.rank
    return alike and result.size > 0 and vector.size == columns == vector.shape[-1]


def biased(region: Region, product: RegionNode, addition: RegionNode, vector: str) -> RegionNode:
    """Both as one node."""
    nodes = [product, addition]
    call = replace(
        product.call,
        op_type=BIASED.op_type,
        domain=BIASED.domain,
        name=name_of(nodes),
        inputs=(*product.call.inputs, region.types[vector]),
        outputs=addition.call.outputs,
    )
    provenance = {**provenance_of(nodes), **product.provenance}
    return RegionNode(call, (*product.inputs, vector), addition.outputs, provenance)
