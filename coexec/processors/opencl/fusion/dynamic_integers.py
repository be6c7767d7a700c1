"""Products of bytes that are quantised while a model runs, with what makes floats of their sums.

ONNX Runtime's dynamic quantiser writes a linear layer as ``DynamicQuantizeLinear``,
``MatMulInteger -> Cast -> Mul -> Add``; the factor of the Mul is another Mul, of the scale that was
found and those of the weights. From MatMulInteger on this is one kernel where the device multiplies
bytes four at a time. Sums are exact; a product without such a chain is computed so, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.elementwise import name_of, provenance_of
from coexec.processors.opencl.fusion.groups import readers_of
from coexec.processors.opencl.fusion.integer_matmul import (
    INTEGER_MATMUL,
    WEIGHTS,
    result_type,
    stored_columns,
)

PRODUCT = "MatMulInteger"
FLOAT = np.dtype(np.float32)
MIDDLE = 128
"""What makes unsigned bytes signed."""
MATRIX = 2


@dataclass
class Layer:
    """A product at node ``index``, and the nodes behind it that are part of it.

    ``factor`` is the node that multiplies the scales, ``scale`` names that of the left operand,
    ``scales`` and ``bias`` are those of the columns; none of them where sums stay integers.
    """

    index: int
    behind: list[int] = field(default_factory=list)
    factor: int | None = None
    scale: str = ""
    scales: Array | None = None
    bias: Array | None = None

    @property
    def indices(self) -> list[int]:
        return [self.index, *self.behind]


def is_layer(region: Region, node: RegionNode) -> bool:
    """Whether a node multiplies unsigned bytes by one known matrix of bytes."""
    call = node.call
    if call.identifier != PRODUCT or call.input(0).dtype != np.uint8 or not call.output(0).size:
        return False
    known = (1, 3) if call.has_input(3) else (1,)
    if any(node.inputs[i] not in region.constants for i in known):
        return False
    zeros = [call.input(i) for i in (2, 3) if call.has_input(i)]
    weights = call.input(1)
    return weights.rank == MATRIX and weights.size > 0 and all(kind.rank <= 1 for kind in zeros)


def has_integer_products(region: Region) -> bool:
    """Whether there are products that dot products of bytes may compute."""
    return any(is_layer(region, node) for node in region.nodes)


def fuse_dynamic(region: Region, facts: DeviceFacts) -> Region:
    """``region`` with such layers as one node each, if the device has dot products."""
    if facts.dots == "none":
        return region
    layers = _Finder(region).layers
    return _rewritten(region, layers) if layers else region


def dynamic_calls(region: Region, facts: DeviceFacts) -> dict[str, OpCall | None]:
    """Nodes, by name, that :func:`fuse_dynamic` replaces: by a call as it is priced, or nothing."""
    if facts.dots == "none":
        return {}
    found: dict[str, OpCall | None] = {}
    for layer in (finder := _Finder(region)).layers:
        for index in layer.behind:
            found[region.nodes[index].call.name] = None
        call = region.nodes[layer.index].call
        made = _Maker(region, layer).node().call
        unnamed = {i: np.zeros_like(array) for i, array in made.constants.items()}
        found[call.name] = replace(
            made, name="", constants=unnamed, like=replace(call, name="", constants={})
        )
    found.update({region.nodes[index].call.name: None for index in finder.idle()})
    return found


class _Finder:
    """The layers of a region."""

    def __init__(self, region: Region) -> None:
        self.region, self.nodes = region, region.nodes
        self.readers = readers_of(region)
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.layers = [
            self._layer(index) for index, node in enumerate(self.nodes) if is_layer(region, node)
        ]

    def idle(self) -> set[int]:
        """Products of scales that nobody but layers reads."""
        taken = {index for layer in self.layers for index in layer.behind}
        factors = {layer.factor for layer in self.layers} - {None}
        return {
            index
            for index in factors
            if index is not None
            and self.nodes[index].outputs[0] not in self.region.outputs
            and taken.issuperset(self.readers.get(self.nodes[index].outputs[0], ()))
        }

    def _only_reader(self, index: int) -> int | None:
        """The one node that reads a node's result, in the same phase, if nobody else needs it."""
        node = self.nodes[index]
        after = self.readers.get(node.outputs[0], [])
        if len(after) != 1 or node.outputs[0] in self.region.outputs:
            return None
        phases = (self.nodes[i].provenance.get("phase") for i in (index, after[0]))
        return after[0] if len(set(phases)) == 1 else None

    def _layer(self, index: int) -> Layer:
        plain = Layer(index)
        cast = self._only_reader(index)
        if cast is None or self.nodes[cast].call.identifier != "Cast":
            return plain
        if self.nodes[cast].call.output(0).dtype != FLOAT:
            return plain
        product = self._only_reader(cast)
        if product is None or not self._keeps_shape(product, "Mul", index):
            return plain
        factor = self.producer.get(self._other(product, self.nodes[cast].outputs[0]))
        parts = None if factor is None else self._scales(factor, index)
        if parts is None:
            return plain
        found = Layer(index, [cast, product], factor, *parts)
        added = self._only_reader(product)
        if added is not None and self._keeps_shape(added, "Add", index):
            bias = self._columns(self._other(added, self.nodes[product].outputs[0]), index)
            if bias is not None:
                found.bias = bias
                found.behind.append(added)
        return found

    def _keeps_shape(self, index: int, kind: str, product: int) -> bool:
        call = self.nodes[index].call
        same = call.output(0).shape == self.nodes[product].call.output(0).shape
        return call.identifier == kind and same and call.output(0).dtype == FLOAT

    def _other(self, index: int, name: str) -> str:
        first, second = self.nodes[index].inputs
        return second if first == name else first

    def _scales(self, factor: int, product: int) -> tuple[str, Array] | None:
        """The name of one scale and the known ones that a node multiplies it by."""
        node = self.nodes[factor]
        if node.call.identifier != "Mul":
            return None
        for name in node.inputs:
            scales = self._columns(self._other(factor, name), product)
            kind = self.region.types[name]
            if scales is not None and kind.size == 1 and kind.dtype == FLOAT:
                return name, scales
        return None

    def _columns(self, name: str, product: int) -> Array | None:
        """Known floats, one for each column of a product, which all its rows have in common."""
        found = self.region.constants.get(name)
        result = self.nodes[product].call.output(0).shape
        columns = self.nodes[product].call.input(1).shape[1]
        if found is None or found.dtype != FLOAT or found.size not in (1, columns):
            return None
        along = found.size == 1 or found.shape[-1] == columns
        fits = along and found.ndim <= len(result) and result[-1] == columns
        return np.broadcast_to(found.reshape(-1), (columns,)) if fits else None


@dataclass
class _Maker:
    """The node of a layer and its new constants."""

    region: Region
    layer: Layer
    constants: dict[str, Array] = field(default_factory=dict)

    def node(self) -> RegionNode:
        """It stands for all nodes of the layer."""
        nodes = [self.region.nodes[index] for index in self.layer.indices]
        first, last = nodes[0], nodes[-1]
        names = self._operands(first, last.outputs[0])
        kinds = tuple(self._type(name) if name else None for name in names)
        scaled = self.layer.scales is not None
        left = first.call.input(0)
        result = replace(
            result_type(left, first.call.input(1), scaled), shape=last.call.output(0).shape
        )
        call = OpCall(
            INTEGER_MATMUL.op_type,
            kinds,
            {"kinds": tuple(dict.fromkeys(node.call.op_type for node in nodes))},
            (result,),
            {i: self.constants[name] for i, name in enumerate(names) if name in self.constants},
            FUSED,
            name=name_of(nodes),
        )
        return RegionNode(call, names, last.outputs, {**provenance_of(nodes), **first.provenance})

    def _type(self, name: str) -> TensorType:
        known = self.constants.get(name)
        return self.region.types[name] if known is None else TensorType.of(known)

    def _operands(self, node: RegionNode, result: str) -> tuple[str, ...]:
        layer, (a, b, zero, zeros) = self.layer, (*node.inputs, "", "")[:4]
        weights = self.region.constants[b]
        points = self.region.constants[zeros] if zeros else np.zeros(1, weights.dtype)
        middle = MIDDLE if weights.dtype == np.uint8 else 0
        columns = weights.shape[1]
        centred = points.reshape(-1).astype(np.int32) - middle
        signed = (weights.astype(np.int16) - middle).astype(np.int8)
        names = [a, zero, layer.scale, self._new(f"{result}/weights", signed)]
        more: tuple[tuple[str, Array | None], ...] = (
            ("zeros", np.broadcast_to(centred, (columns,)) if centred.any() else None),
            ("scales", layer.scales),
            ("bias", layer.bias),
        )
        for part, array in more:
            known = None if array is None else _filled_up(array)
            names.append("" if known is None else self._new(f"{result}/{part}", known))
        while not names[-1]:
            names.pop()
        assert len(names) > WEIGHTS
        return tuple(names)

    def _new(self, name: str, array: Array) -> str:
        self.constants[name] = array
        return name


def _filled_up(array: Array) -> Array:
    """With zeros to whole vectors."""
    return np.pad(array, (0, stored_columns(array.size) - array.size))


def _rewritten(region: Region, layers: Sequence[Layer]) -> Region:
    """Each layer's node where its last one stood: all that it reads is there by then."""
    idle = _Finder(region).idle()
    constants: dict[str, Array] = {}
    made: dict[int, RegionNode] = {}
    gone = set(idle)
    for layer in layers:
        maker = _Maker(region, layer)
        made[layer.indices[-1]] = maker.node()
        constants.update(maker.constants)
        gone.update(layer.indices[:-1])
    types: Mapping[str, TensorType] = {name: TensorType.of(a) for name, a in constants.items()}
    return replace(
        region,
        nodes=tuple(_replaced(region, made, gone)),
        types={**region.types, **types},
        constants={**region.constants, **constants},
    )


def _replaced(
    region: Region, made: Mapping[int, RegionNode], gone: set[int]
) -> Iterator[RegionNode]:
    for index, node in enumerate(region.nodes):
        if index not in gone:
            yield made.get(index, node)
