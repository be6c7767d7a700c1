"""Groups of nodes that a session computes on bytes, each as one call that can be timed.

A session computes what stands between dequantisations and a quantisation on the bytes themselves.
So plans price such a group by one call of a domain of its own: the operator in the middle, with
bytes where it has floats. Alone it is compiled as the group that it stands for, with scales and
weights that change no time, so that layers of one geometry are measured once. Images enter and
leave with channels last, as ONNX Runtime keeps them from one such layer to the next. Which
operators have forms on bytes: ``com.microsoft`` in ONNX Runtime's ``docs/ContribOperators.md``
(QLinearConv, QLinearAdd, ...). A Relu that quantising does anyway is in none of them: ONNX Runtime
takes it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, Region, RegionNode, TensorType
from coexec.ops.table import opdef
from coexec.processors.ort.inline import Step, native_step
from coexec.processors.ort.integer_weights import (
    DEQUANTIZE,
    FLOAT,
    QUANTIZE,
    is_nothing_below,
    with_integer_weights,
)

ON_BYTES = "coexec.ort"
"""Domain of the calls that stand for a group."""
FOLLOWERS = frozenset({"Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "MaxPool"})
"""Operators without weights that have forms on bytes, if all around them is quantised."""
OPSET = 21
PLANES = 4
"""Axes of images."""
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Permutations of images with channels last, and back."""
SCALE, OTHER = np.float32(1 / 64), np.float32(1 / 32)
"""Scales of what a priced group reads, and of its result where the two differ."""


@dataclass(frozen=True)
class ByteLayer:
    """The operator ``core`` on floats, of no name.

    ``same``: its result has the scale of what it reads, so that ONNX Runtime need not rescale.
    """

    core: OpCall
    same: bool


def layer_of(call: OpCall) -> ByteLayer:
    """What a call of :data:`ON_BYTES` stands for."""
    own = call.attributes["layer"]
    assert isinstance(own, ByteLayer)
    return own


def byte_calls(region: Region) -> dict[str, OpCall | None]:
    """By node, what computes it in a session of ``region``: a group's call, or another node's."""
    return dict(_Groups(region).calls())


def share_on_bytes(made: OpCall, share: OpCall) -> OpCall:
    """What computes ``share``, a part of a node on floats that the group ``made`` computes."""
    kind = made.output(0).dtype
    return _call(replace(layer_of(made), core=_nameless(share)), kind)


def layer_steps(node: RegionNode, origin: int) -> tuple[list[Step], dict[str, Array]]:
    """The group that a call of :data:`ON_BYTES` stands for, and the constants that are new."""
    own, name = layer_of(node.call), node.call.name or node.outputs[0]
    kind = node.call.output(0)
    zero = np.zeros((), kind.dtype)
    known = {f"{name}/scale": np.asarray(SCALE), f"{name}/zero": zero}
    steps, names = [], []
    read = (f"{name}/scale", f"{name}/zero")
    for index, operand in enumerate(node.inputs):
        if not operand or index in node.call.constants:
            names.append(operand)
            continue
        names.append(f"{name}/floats{index}")
        given = operand
        if node.call.input(index).rank == PLANES:
            given = f"{name}/first{index}"
            steps.append(_turned(given, operand, TO_FIRST, origin))
        steps.append(_conversion(DEQUANTIZE, names[-1], (given, *read), origin))
    last = f"{name}/result"
    core = replace(own.core, name=name)
    steps.append(native_step(RegionNode(core, tuple(names), (last,)), origin))
    wanted = read
    if not own.same:
        known[f"{name}/own scale"] = np.asarray(OTHER)
        wanted = (f"{name}/own scale", read[1])
    if kind.rank != PLANES:
        return [*steps, _conversion(QUANTIZE, node.outputs[0], (last, *wanted), origin)], known
    steps.append(_conversion(QUANTIZE, f"{name}/bytes", (last, *wanted), origin))
    return [*steps, _turned(node.outputs[0], f"{name}/bytes", TO_LAST, origin)], known


def _turned(result: str, source: str, axes: tuple[int, ...], origin: int) -> Step:
    wanted = {"perm": ir.AttrInt64s("perm", axes)}
    return Step("Transpose", f"{result}/turned", (source,), (result,), wanted, OPSET, origin)


def _conversion(kind: str, result: str, inputs: tuple[str, ...], origin: int) -> Step:
    return Step(kind, f"{result}/{kind}", inputs, (result,), {}, OPSET, origin)


@dataclass(frozen=True)
class _Group:
    """Indices of the operator, of the Relu behind it (if any) and of the quantisation."""

    core: int
    active: int | None
    quantise: int


class _Groups:
    """The groups of a region."""

    def __init__(self, region: Region) -> None:
        self.region, self.nodes = region, region.nodes
        self.makers = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(index)
        plain = [(i, node) for i, node in enumerate(self.nodes) if not node.call.domain]
        self.steps = {i: native_step(node, i) for i, node in plain}
        changed, _ = with_integer_weights([*self.steps.values()], region.constants)
        before = {step.name: step for step in self.steps.values()}
        self.weighted = {s.name for s in changed if before.get(s.name, s) != s}
        found = (self._group(index) for index in self.steps)
        self.found = [group for group in found if group is not None]

    def calls(self) -> Iterator[tuple[str, OpCall | None]]:
        """What :func:`byte_calls` tells."""
        views = self._views()
        cores = {group.core for group in self.found} | views.keys()
        for group in self.found:
            for index in (group.active, group.quantise):
                if index is not None:
                    yield self.nodes[index].call.name, None
            yield self.nodes[group.core].call.name, self._made(group)
        for quantise in views.values():
            yield self.nodes[quantise].call.name, None
        for maker in {index for core in cores for index in self._before(core)}:
            result = self.nodes[maker].outputs[0]
            if cores.issuperset(self.readers[result]) and result not in self.region.outputs:
                yield self.nodes[maker].call.name, None

    def _views(self) -> dict[int, int]:
        """Views between conversions that change nothing, with the quantisations behind them."""
        found = {}
        for index in self.steps:
            before = self._before(index) if opdef(self.nodes[index].call).view else []
            after = self._only_reader(index)
            if not before or after is None or self.nodes[after].call.op_type != QUANTIZE:
                continue
            pair = [*before, after]
            if all(map(self._one_scale, pair)) and self._same_scales(pair):
                found[index] = after
        return found

    def _same_scales(self, conversions: Sequence[int]) -> bool:
        """Whether conversions have equal scales and zero points, all known."""
        steps = [self.nodes[index].inputs[1:] for index in conversions]
        known = [[self.region.constants.get(name) for name in each] for each in steps]
        texts = [[None if a is None else a.tobytes() for a in each] for each in known]
        return all(each == texts[0] and None not in each for each in texts)

    def _group(self, core: int) -> _Group | None:
        node = self.nodes[core]
        weighted = self.steps[core].name in self.weighted and all(
            map(self._one_scale, self._before(core))
        )
        if not weighted and not (node.call.op_type in FOLLOWERS and self._all_bytes(core)):
            return None
        after = self._only_reader(core)
        active = after if after is not None and self.nodes[after].call.op_type == "Relu" else None
        if active is not None:
            after = self._only_reader(active)
        if after is None or self.nodes[after].call.op_type != QUANTIZE:
            return None
        quantise = self.steps[after]
        if active is not None and not is_nothing_below(quantise, self.region.constants):
            return None
        return _Group(core, active, after) if self._one_scale(after) else None

    def _only_reader(self, index: int) -> int | None:
        name = self.nodes[index].outputs[0]
        after = self.readers.get(name, [])
        alone = len(after) == 1 and name not in self.region.outputs
        return after[0] if alone and after[0] in self.steps else None

    def _before(self, core: int) -> list[int]:
        """The dequantisations that an operator reads."""
        found = [self.makers.get(name, -1) for name in self.nodes[core].inputs]
        return [i for i in found if i >= 0 and self.nodes[i].call.identifier == DEQUANTIZE]

    def _all_bytes(self, core: int) -> bool:
        found = self._before(core)
        return len(found) == len(self.nodes[core].inputs) and all(map(self._one_scale, found))

    def _one_scale(self, index: int) -> bool:
        """Whether a conversion has one known scale, and unsigned bytes on its other side.

        On x86 CPUs, ONNX Runtime computes layers of signed bytes in floats.
        """
        call = self.nodes[index].call
        whole = call.input(0) if call.op_type == DEQUANTIZE else call.output(0)
        scale = self.region.constants.get(self.nodes[index].inputs[1])
        return scale is not None and scale.size == 1 and whole.dtype == np.uint8

    def _made(self, group: _Group) -> OpCall:
        node, after = self.nodes[group.core], self.nodes[group.quantise]
        layer = ByteLayer(
            _nameless(node.call), self._same_scales([*self._before(group.core), group.quantise])
        )
        return _call(layer, after.call.output(0).dtype)


def _nameless(call: OpCall) -> OpCall:
    """Without values and names; which operands are known is kept by ones in their place."""
    return replace(call, name="", constants={i: np.ones((), FLOAT) for i in call.constants})


def _call(layer: ByteLayer, kind: np.dtype[np.generic]) -> OpCall:
    """The call of a group whose bytes are of ``kind``; known operands are ones."""
    core = layer.core
    known = {
        i: np.ones(core.input(i).shape, core.input(i).dtype)
        for i in core.constants
        if core.has_input(i)
    }
    inputs = tuple(
        _last(each, kind) if each is not None and i not in known else each
        for i, each in enumerate(core.inputs)
    )
    outputs = tuple(each and _last(each, kind) for each in core.outputs)
    results = tuple(each and _narrow(each, kind) for each in core.outputs)
    bare = replace(core, constants={})
    narrow = tuple(each and _narrow(each, kind) for each in core.inputs)
    return OpCall(
        core.op_type,
        inputs,
        {"layer": replace(layer, core=bare)},
        outputs,
        known,
        ON_BYTES,
        core.version,
        like=replace(bare, inputs=narrow, outputs=results),
    )


def _last(each: TensorType, kind: np.dtype[np.generic]) -> TensorType:
    """Bytes of a tensor, of an image with channels last."""
    shape = each.shape
    return TensorType(tuple(shape[i] for i in TO_LAST) if each.rank == PLANES else shape, kind)


def _narrow(each: TensorType, kind: np.dtype[np.generic]) -> TensorType:
    return TensorType(each.shape, kind) if each.dtype == FLOAT else each
