"""Layers between dequantisation and quantisation become operators on bytes, channels last.

ONNX Runtime's quantiser writes ``DequantizeLinear -> Conv -> QuantizeLinear``. Where a device
multiplies bytes four at a time, such a group is one kernel that reads and writes bytes. Tensors
between two groups stay with channels last; a tensor that operators on floats read as well is
dequantised to where they expect it. Bytes that come from elsewhere (another processor, a cut) or go
there are turned where they enter and leave. Convolutions and linear layers decide; what stands
between them (sums, pools, joins) follows where all its operands are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import readers_of
from coexec.processors.opencl.fusion.integer_cores import Core, Cores
from coexec.processors.opencl.fusion.integer_operators import (
    ADD,
    CONCAT,
    CONV,
    DEQUANTISE,
    FROM_LAST,
    MAX_POOL,
    MEAN,
    QUANTISE,
    TO_LAST,
    IntegerLayer,
    Residual,
    Steps,
    stored_type,
)
from coexec.processors.opencl.fusion.integer_weights import IntegerWeights, integer_weights

FOLLOWERS = {
    "Add": ADD,
    "MaxPool": MAX_POOL,
    "GlobalAveragePool": MEAN,
    "Concat": CONCAT,
}


def fuse_integers(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with quantised layers as operators on bytes, if the device has dot products."""
    if facts.dots == "none":
        return region
    rewriter = _Rewriter(region)
    return rewriter.rewritten() if rewriter.kept else region


def replaced_calls(region: Region, facts: DeviceFacts) -> dict[str, OpCall | None]:
    """Nodes, by name, that :func:`fuse_integers` replaces: by a call on bytes, or by nothing.

    The call of a group stands at its convolution, or at what else it is about.
    """
    if facts.dots == "none":
        return {}
    rewriter = _Rewriter(region)
    if not rewriter.kept:
        return {}
    made = rewriter.rewritten().nodes
    left = {id(node) for node in made}
    found: dict[str, OpCall | None] = {
        node.call.name: None for node in region.nodes if id(node) not in left
    }
    for node in made:
        owner = rewriter.owners.get(node.outputs[0])
        if owner is not None:
            found[owner] = node.call
    return found


def has_integer_layers(region: Region) -> bool:
    """Whether there are quantised layers that dot products of bytes may compute."""
    return any(core.weights for core in Cores(region, readers_of(region)).found)


@dataclass
class _Rewriter:
    region: Region
    kept: dict[str, Core] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    weights: dict[str, IntegerWeights] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = self.region.nodes
        self.readers = readers_of(self.region)
        self.cores = Cores(self.region, self.readers)
        for core in self.cores.found:
            if self._keeps(core):
                self.kept[core.result] = core
        if not self.weights:
            self.kept.clear()
        self.residuals = self._residuals()

    def _keeps(self, core: Core) -> bool:
        if core.call.op_type in FOLLOWERS or core.view:
            return all(name in self.kept or self._enters(name) for name in core.operands)
        steps = self.cores.steps
        how = (steps[core.operands[0]], steps[core.result])
        found = integer_weights(core, *how, self.region.constants)
        if found is None:
            return False
        self.weights[core.result] = found
        return True

    def _enters(self, name: str) -> bool:
        """Whether bytes were quantised elsewhere: in another region, or before they were cut."""
        maker = self.cores.producer.get(name)
        return maker is None or self.nodes[maker].call.identifier != "QuantizeLinear"

    def _leaves(self, name: str) -> bool:
        """Whether somebody needs a tensor's bytes where the graph has them."""
        kinds = {self.nodes[i].call.identifier for i in self.readers.get(name, ())}
        return not kinds <= {"DequantizeLinear"} or name in self.region.outputs

    def _residuals(self) -> dict[str, str]:
        """Sums that a convolution in front of them adds, and which of their operands it makes."""
        found: dict[str, str] = {}
        for result, core in self.kept.items():
            if core.call.op_type != "Add":
                continue
            for name in reversed(core.operands):
                inner = self.kept.get(name)
                own = inner is not None and name in self.weights and name not in found.values()
                own = own and not self._leaves(name)
                if own and not self.weights[name].depthwise and self._read_by(name) == {core.index}:
                    found[result] = name
                    break
        return found

    def _read_by(self, name: str) -> set[int]:
        """Nodes that read a quantised tensor's values."""
        return {
            reader
            for index in self.readers.get(name, ())
            for value in self.nodes[index].outputs
            for reader in (*self.readers.get(value, ()), *self._outside(value))
        }

    def _outside(self, value: str) -> tuple[int, ...]:
        return (-1,) if value in self.region.outputs else ()

    def rewritten(self) -> Region:
        """The region with new nodes where quantisations stood."""
        self.types = dict(self.region.types)
        self.constants = dict(self.region.constants)
        gone = {index for core in self.kept.values() for index in core.indices}
        taken = set(self.residuals.values())
        wanted = {
            name for core in self.kept.values() for name in core.operands if name not in self.kept
        }
        made = [self._entering(name) for name in self.region.inputs if name in wanted]
        for index, node in enumerate(self.nodes):
            result = node.outputs[0]
            if result in self.kept and index in gone:
                if result not in taken and self.nodes[index].call.op_type == "QuantizeLinear":
                    made.append(self._layer(self.kept[result]))
                    if self._leaves(result):
                        made.append(self._leaving(node))
            elif index in gone:
                continue
            elif node.call.identifier == "DequantizeLinear" and node.inputs[0] in self.kept:
                if self._is_needed(result, gone):
                    made.append(self._dequantised(node))
            elif node.call.identifier == "QuantizeLinear" and result in wanted:
                made += (self._quantised(node), node)
            else:
                made.append(node)
                made += [self._entering(name) for name in node.outputs if name in wanted]
        return self._without_idle(made)

    def _is_needed(self, name: str, gone: set[int]) -> bool:
        return name in self.region.outputs or not gone.issuperset(self.readers.get(name, ()))

    def _without_idle(self, nodes: list[RegionNode]) -> Region:
        """The region without conversions that nobody reads any more."""
        read = set(self.region.outputs)
        found: list[RegionNode] = []
        for node in reversed(nodes):
            idle = node.call.identifier in ("QuantizeLinear", "DequantizeLinear")
            if idle and read.isdisjoint(node.outputs):
                continue
            read.update(node.inputs)
            found.append(node)
        return replace(
            self.region,
            nodes=tuple(reversed(found)),
            types=self.types,
            constants=self.constants,
        )

    def _layer(self, core: Core) -> RegionNode:
        """The group whose quantisation makes ``core.result``."""
        if core.view:
            return self._view(core)
        inner = self.residuals.get(core.result)
        if inner is not None:
            return self._with_residual(core, self.kept[inner])
        layer = IntegerLayer(
            core.call,
            tuple(self.cores.steps[name] for name in core.operands),
            self.cores.steps[core.result],
            *core.bounds,
            kinds=core.kinds,
        )
        names = tuple(last(name) for name in core.operands)
        if core.result in self.weights:
            names += self._known(core)
        operator = FOLLOWERS.get(core.call.op_type, CONV)
        return self._node(operator.op_type, layer, core, names)

    def _with_residual(self, core: Core, inner: Core) -> RegionNode:
        other = next(name for name in core.operands if name != inner.result)
        steps = self.cores.steps
        added = Residual(steps[other], steps[core.result], *core.bounds)
        layer = IntegerLayer(
            inner.call,
            (steps[inner.operands[0]],),
            steps[inner.result],
            *inner.bounds,
            residual=added,
            kinds=(*inner.kinds, *core.kinds),
        )
        names = (last(inner.operands[0]), *self._known(inner), last(other))
        joined = replace(core, index=inner.index, indices=(*inner.indices, *core.indices))
        return self._node(CONV.op_type, layer, joined, names)

    def _known(self, core: Core) -> tuple[str, str, str]:
        """Names of weights, biases and scales, which become constants."""
        found = self.weights[core.result]
        parts = {"weights": found.values, "bias": found.bias, "scale": found.scale}
        names = [f"{core.result}/{part}" for part in parts]
        for name, array in zip(names, parts.values(), strict=True):
            self._constant(name, array)
        return names[0], names[1], names[2]

    def _constant(self, name: str, array: Array) -> None:
        self.constants[name] = array
        self.types[name] = TensorType.of(array)

    def _node(
        self, operator: str, layer: IntegerLayer, core: Core, names: tuple[str, ...]
    ) -> RegionNode:
        nodes = [self.nodes[index] for index in sorted(core.indices)]
        result = last(core.result)
        self.owners[result] = self.nodes[core.index].call.name
        self.types[result] = stored_type(layer.core.output(0).shape)
        call = OpCall(
            operator,
            tuple(self.types[name] for name in names),
            {"layer": layer},
            (self.types[result],),
            {i: self.constants[name] for i, name in enumerate(names) if name in self.constants},
            FUSED,
            name=name_of(nodes[:1]),
        )
        return RegionNode(call, names, (result,), provenance_of(nodes))

    def _view(self, core: Core) -> RegionNode:
        """Another shape of one position: the bytes stay where they are."""
        source, result = last(core.operands[0]), last(core.result)
        self.types[result] = self.types[source]
        call = OpCall(
            "Identity", (self.types[source],), {}, (self.types[result],), name=core.call.name
        )
        nodes = [self.nodes[index] for index in core.indices]
        return RegionNode(call, (source,), (result,), provenance_of(nodes))

    def _entering(self, name: str) -> RegionNode:
        """Bytes of the graph with channels last; the first that dequantises them tells of them."""
        first = self.nodes[min(self.readers[name], key=self._rank)]
        kind, steps = self.types[name], self.cores.steps[name]
        layer = IntegerLayer(first.call, (steps,), steps, kinds=(TO_LAST.op_type,))
        self.types[last(name)] = stored_type(kind.shape)
        call = self._turning(TO_LAST.op_type, layer, kind, self.types[last(name)], first)
        return RegionNode(call, (name,), (last(name),), first.provenance)

    def _rank(self, index: int) -> tuple[bool, int]:
        return self.nodes[index].call.identifier != "DequantizeLinear", index

    def _leaving(self, node: RegionNode) -> RegionNode:
        """Bytes with channels last as the graph has them, in place of a quantisation."""
        name = node.outputs[0]
        steps = self.cores.steps[name]
        layer = IntegerLayer(node.call, (steps,), steps, kinds=(FROM_LAST.op_type,))
        call = self._turning(
            FROM_LAST.op_type, layer, self.types[last(name)], self.types[name], node
        )
        return RegionNode(call, (last(name),), (name,), node.provenance)

    def _turning(
        self, operator: str, layer: IntegerLayer, x: TensorType, y: TensorType, node: RegionNode
    ) -> OpCall:
        return OpCall(operator, (x,), {"layer": layer}, (y,), domain=FUSED, name=node.call.name)

    def _quantised(self, node: RegionNode) -> RegionNode:
        name = node.outputs[0]
        layer = IntegerLayer(node.call, (), self.cores.steps[name], kinds=("QuantizeLinear",))
        self.owners[last(name)] = node.call.name
        self.types[last(name)] = stored_type(node.call.output(0).shape)
        call = OpCall(
            QUANTISE.op_type,
            node.call.inputs[:1],
            {"layer": layer},
            (self.types[last(name)],),
            domain=FUSED,
            name=node.call.name,
        )
        return RegionNode(call, node.inputs[:1], (last(name),), node.provenance)

    def _dequantised(self, node: RegionNode) -> RegionNode:
        source = node.inputs[0]
        self.owners[node.outputs[0]] = node.call.name
        steps: Steps = self.cores.steps[source]
        layer = IntegerLayer(node.call, (steps,), steps, kinds=("DequantizeLinear",))
        call = OpCall(
            DEQUANTISE.op_type,
            (self.types[last(source)],),
            {"layer": layer},
            node.call.outputs,
            domain=FUSED,
            name=node.call.name,
        )
        return RegionNode(call, (last(source),), node.outputs, node.provenance)


def last(name: str) -> str:
    """The name of a quantised tensor with channels last."""
    return f"{name}/channels last"
