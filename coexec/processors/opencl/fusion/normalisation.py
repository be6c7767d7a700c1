"""Batch normalisation takes in the activation behind it, its gradient the one in front of it.

Forward: ``Relu`` or ``Clip`` with known bounds of the normalised value, or of its sum with a
residual, where nobody else reads what lies between. Backward: the activation's gradient
``Where(y > low [and y < high], dy, 0)``, which stays a result if others read it too; the sums
over a share of a batch, which come before such a gradient, take it in likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coexec.core.types import OpCall, Region, RegionNode
from coexec.ops.opdef import OpDef
from coexec.ops.table import opdef
from coexec.processors.opencl.family import Applies, DeviceFacts
from coexec.processors.opencl.fusion.activated import (
    ACTIVATED,
    ACTIVATED_GRAD,
    ACTIVATED_JOINT,
    ACTIVATED_JOINT_GRAD,
    ACTIVATED_SUMS,
    Activated,
    Bounds,
)
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, number_of, provenance_of
from coexec.processors.opencl.fusion.expressions import can_stand_in_chain
from coexec.processors.opencl.fusion.groups import Groups, readers_of, replaced
from coexec.processors.opencl.kernels import norm, norm_joint, norm_shares

NORMALISATION, GRADIENT = "BatchNormalization", "coexec::BatchNormalizationGrad"
SUMS = norm_shares.SUMS
JOINT, JOINT_GRAD = norm_joint.JOINT, norm_joint.JOINT_GRAD
Fused = Mapping[str, tuple[OpDef, Applies, int]]
FORWARD: Fused = {
    NORMALISATION: (ACTIVATED, norm.applies_activated, 5),
    JOINT: (ACTIVATED_JOINT, norm_joint.applies, 4),
}
"""What a normalisation becomes, why not, and its operands (old running statistics may follow)."""
BACKWARD: Fused = {
    GRADIENT: (ACTIVATED_GRAD, norm.applies_activated, 3),
    SUMS: (ACTIVATED_SUMS, norm_shares.applies_planes, 3),
    JOINT_GRAD: (ACTIVATED_JOINT_GRAD, norm_joint.applies, 6),
}


def fuse_normalisation(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with activations inside of the normalisations next to them."""
    fusion = _Fusion(region, facts)
    for index, node in enumerate(region.nodes):
        if node.call.identifier in FORWARD:
            fusion.forward(index)
        elif node.call.identifier in BACKWARD:
            fusion.backward(index)
    return replaced(region, fusion.node, fusion.groups)


class _Fusion:
    def __init__(self, region: Region, facts: DeviceFacts) -> None:
        self.region, self.facts = region, facts
        self.nodes = region.nodes
        self.groups = Groups(region)
        self.readers = readers_of(region)
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.made: dict[int, Callable[[], RegionNode]] = {}

    def node(self, indices: list[int]) -> RegionNode:
        """The node of a group, which was decided on with it."""
        return self.made[indices[0]]()

    def unite(self, indices: list[int], make: Callable[[], RegionNode]) -> None:
        """Make a group of nodes, if that is legal and none is in one already."""
        free = all(len(self.groups.indices(self.groups.of[index])) == 1 for index in indices)
        phases = {self.nodes[index].provenance.get("phase") for index in indices}
        if free and len(phases) == 1 and self.groups.merge(indices) is not None:
            self.made[min(indices)] = make

    def only_reader(self, name: str) -> int | None:
        """The node that alone reads a tensor, which is no output of the region."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.region.outputs else None

    def forward(self, index: int) -> None:
        node = self.nodes[index]
        kind, refuses, least = FORWARD[node.call.identifier]
        given = len(node.inputs)
        if refuses(node.call, self.facts) or given < least or not whole(node, given):
            return
        after = self.only_reader(node.outputs[0])
        if after is None:
            return
        residual = self.residual_of(after, node.outputs[0])
        activation = after if residual is None else self.only_reader(self.nodes[after].outputs[0])
        bounds = None if activation is None else bounds_of(self.nodes[activation].call)
        if activation is None or bounds is None:
            return
        fused = [index, activation] if residual is None else [index, after, activation]

        def make() -> RegionNode:
            nodes = [self.nodes[i] for i in fused]
            inputs = (*node.inputs, *([residual] if residual else []))
            outputs = (nodes[-1].outputs[0], *node.outputs[1:])
            own = activated(nodes, node, bounds, residual is not None)
            return self.fused(kind.op_type, own, nodes, inputs, outputs)

        self.unite(fused, make)

    def residual_of(self, index: int, normalised: str) -> str | None:
        """The other operand if a node adds a tensor of the same type to a normalised one."""
        node = self.nodes[index]
        if node.call.identifier != "Add":
            return None
        others = [name for name in node.inputs if name != normalised]
        types = self.region.types
        alike = len(others) == 1 and types[others[0]] == types[normalised]
        return others[0] if alike else None

    def backward(self, index: int) -> None:
        node = self.nodes[index]
        kind, refuses, operands = BACKWARD[node.call.identifier]
        if refuses(node.call, self.facts) or not whole(node, operands):
            return
        where = self.producer.get(node.inputs[2])
        found = None if where is None else self.mask_of(self.nodes[where])
        if where is None or found is None:
            return
        y, bounds, tests = found
        behind, dy = self.nodes[where].outputs[0], self.nodes[where].inputs[1]
        if self.types_differ(y, dy, node.inputs[0]) or self.better_in_a_chain(dy):
            return
        shared = behind in self.region.outputs or self.readers[behind] != [index]
        fused = sorted([*tests, where, index])
        results = 2 if kind is ACTIVATED_SUMS else 3

        def make() -> RegionNode:
            nodes = [self.nodes[i] for i in fused]
            inputs = (*node.inputs[:2], dy, *node.inputs[3:], y)
            outputs = (*node.outputs, *[""] * (results - len(node.outputs)), behind)
            own = activated(nodes, node, bounds, residual=False)
            return self.fused(
                kind.op_type, own, nodes, inputs, outputs if shared else outputs[:results]
            )

        self.unite(fused, make)

    def types_differ(self, *names: str) -> bool:
        return len({self.region.types[name] for name in names}) > 1

    def better_in_a_chain(self, dy: str) -> bool:
        """Whether the mask rather joins the operator that makes the gradient, say a sum."""
        producer = self.producer.get(dy)
        return (
            producer is not None
            and can_stand_in_chain(self.nodes[producer].call)
            and self.only_reader(dy) is not None
        )

    def mask_of(self, where: RegionNode) -> tuple[str, Bounds, list[int]] | None:
        """Of ``Where(test of y, dy, 0)`` y, the bounds, and the nodes that test for it alone."""
        if where.call.identifier != "Where" or number_of(where.call, 2) != 0:
            return None
        test = self.alone(where.inputs[0])
        if test is None:
            return None
        single = self.bound_of(test)
        if single is not None:
            return *single, [test]
        node = self.nodes[test]
        if node.call.identifier != "And":
            return None
        parts = [self.alone(name) for name in node.inputs]
        tests = [part for part in parts if part is not None]
        bounds = [bound for part in tests if (bound := self.bound_of(part)) is not None]
        if len(bounds) != 2 or bounds[0][0] != bounds[1][0]:
            return None
        (y, first), (_, second) = bounds
        if (first.low is None) == (second.low is None):
            return None
        low = second.low if first.low is None else first.low
        high = second.high if first.high is None else first.high
        return y, Bounds(low, high), [*tests, test]

    def alone(self, name: str) -> int | None:
        """The node that makes a tensor which one node alone reads."""
        return self.producer.get(name) if self.only_reader(name) is not None else None

    def bound_of(self, index: int) -> tuple[str, Bounds] | None:
        """Of ``y > number`` or ``y < number`` y and the bound."""
        node = self.nodes[index]
        number = number_of(node.call, 1) if len(node.inputs) == 2 else None
        if number is None or node.call.identifier not in ("Greater", "Less"):
            return None
        low = node.call.identifier == "Greater"
        return node.inputs[0], Bounds(low=number) if low else Bounds(high=number)

    def fused(
        self,
        op_type: str,
        own: Activated,
        nodes: list[RegionNode],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> RegionNode:
        call = OpCall(
            op_type,
            tuple(self.region.types[name] for name in inputs),
            {"activated": own},
            tuple(self.region.types[name] if name else None for name in outputs),
            domain=FUSED,
            name=name_of(nodes),
            output_count=len(outputs),
        )
        own_layer = next(n for n in nodes if n.call.identifier == own.call.identifier)
        names = provenance_of(nodes)["nodes"]
        return RegionNode(call, inputs, outputs, {**own_layer.provenance, "nodes": names})


def whole(node: RegionNode, operands: int) -> bool:
    """Whether a node has so many operands, none of them absent."""
    return len(node.inputs) == operands and all(node.inputs)


def activated(
    nodes: list[RegionNode], node: RegionNode, bounds: Bounds, residual: bool
) -> Activated:
    """The normalisation ``node`` with what else ``nodes`` do."""
    flop = sum(opdef(n.call).work(n.call).flop for n in nodes if n is not node)
    kinds = tuple(n.call.identifier for n in nodes)
    return Activated(replace(node.call, name=""), bounds, kinds, flop, residual)


def bounds_of(call: OpCall) -> Bounds | None:
    """The bounds of an activation that cuts off, if they are known."""
    if call.identifier == "Relu":
        return Bounds(low=0.0)
    if call.identifier != "Clip":
        return None
    found = [number_of(call, i) if call.has_input(i) else None for i in (1, 2)]
    known = all(
        value is not None or not call.has_input(i) for i, value in zip((1, 2), found, strict=True)
    )
    return Bounds(*found) if known and found != [None, None] else None
