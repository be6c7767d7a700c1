"""Which channels of a network can only be removed together.

Every convolution and product makes a group of channels (axis 1 of its result). What passes channels
on (activations, poolings, batch normalisation, depthwise convolutions) keeps the group, a residual
addition joins two groups to one, a concatenation lines groups up, and what mixes channels in a way
that is not known here keeps its operands' groups whole. After Fang and others, "DepGraph: Towards
any structural pruning" (2023). Only weights need known shapes: the batch may be open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.node import known_type
from coexec.passes.channel_groups import ChannelGroups, Cut, Layout, Writer
from coexec.passes.fold_batch_norm import constant

PASSED_ON = frozenset(
    {
        "Abs",
        "AveragePool",
        "Cast",
        "Celu",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "LpPool",
        "MaxPool",
        "Mish",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""Operators whose result has, in each channel, something of that channel of the first operand."""
JOINED = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "PRelu", "Sub", "Sum"})
"""Operators that combine operands element by element, with broadcasting."""
NORMS = {"BatchNormalization": 5, "InstanceNormalization": 3}
"""Operators with vectors of one entry a channel, and how many operands they have."""
REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Squeeze"})


def find_channel_groups(graph: ir.Graph) -> ChannelGroups:
    """Walk ``graph`` (execution order) and collect its groups of channels; changes nothing."""
    found = ChannelGroups()
    walker = _Walker(found)
    for node in graph:
        walker.visit(node)
    for value in graph.outputs:
        found.keep(found.layouts.get(value), f"output {value.name!r} of the model has them")
    return found


class _UnknownError(Exception):
    """What a node does with channels is not known: it needs them all."""


class _Walker:
    def __init__(self, found: ChannelGroups) -> None:
        self.found = found
        self.rules: Mapping[str, Callable[[ir.Node], Layout | None]] = {
            "Conv": self._conv,
            "ConvTranspose": self._conv_transpose,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Concat": self._concat,
            "Flatten": self._flatten,
            "Reshape": self._flatten,
            **dict.fromkeys(PASSED_ON, self._pass_on),
            **dict.fromkeys(JOINED, self._join),
            **dict.fromkeys(NORMS, self._norm),
            **dict.fromkeys(REDUCTIONS, self._reduce),
        }

    def visit(self, node: ir.Node) -> None:
        rule = None if node.domain else self.rules.get(node.op_type)
        outputs = [value for value in node.outputs if value.name]
        try:
            if rule is None or len(outputs) != 1:
                raise _UnknownError
            layout = rule(node)
        except _UnknownError:
            self._keep_operands(node)
            return
        if layout is not None:
            self.found.layouts[outputs[0]] = layout

    def _keep_operands(self, node: ir.Node) -> None:
        """This node needs all channels of what it reads."""
        for index in range(len(node.inputs)):
            self.found.keep(self._layout(node, index), f"{node.op_type} {node.name!r} reads them")

    def _layout(self, node: ir.Node, index: int = 0) -> Layout | None:
        value = node.inputs[index]
        return None if value is None else self.found.layouts.get(value)

    def _weight(self, node: ir.Node, index: int) -> Array | None:
        """A constant operand that this node alone reads."""
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant(value)
        if value is None or array is None or not value.is_initializer():
            return None
        return array if len(tuple(value.uses())) == 1 and not value.is_graph_output() else None

    def _has(self, node: ir.Node, index: int) -> bool:
        return index < len(node.inputs) and node.inputs[index] is not None

    def _cut(self, node: ir.Node, index: int, axis: int, layout: Layout) -> None:
        value = node.inputs[index]
        assert value is not None
        self.found.cuts.append(Cut(value, axis, layout))

    def _conv(self, node: ir.Node) -> Layout | None:
        weight, groups = self._weight(node, 1), node.attributes.get_int("group", 1)
        if weight is None or (self._has(node, 2) and self._weight(node, 2) is None):
            raise _UnknownError
        if groups == 1:
            self._read(node, weight.shape[1], 1)
            return self._write(node, weight.reshape(len(weight), -1), 0, weight.ndim)
        layout = self._layout(node)
        if layout is None or not groups == len(weight) == self.found.total(layout):
            raise _UnknownError
        self.found.depthwise.append(node)
        if len(layout.groups) == 1:
            rows = weight.reshape(len(weight), -1)
            self.found.writers.append(Writer(node, layout.groups[0], rows))
        for index in (1, 2) if self._has(node, 2) else (1,):
            self._cut(node, index, 0, layout)
        return layout

    def _conv_transpose(self, node: ir.Node) -> Layout | None:
        weight = self._weight(node, 1)
        if weight is None or node.attributes.get_int("group", 1) != 1:
            raise _UnknownError
        if self._has(node, 2) and self._weight(node, 2) is None:
            raise _UnknownError
        self._read(node, weight.shape[0], 0)
        rows = np.moveaxis(weight, 1, 0).reshape(weight.shape[1], -1)
        return self._write(node, rows, 1, weight.ndim)

    def _gemm(self, node: ir.Node) -> Layout | None:
        weight = self._weight(node, 1)
        bias = self._weight(node, 2) if self._has(node, 2) else None
        plain = not node.attributes.get_int("transA", 0)
        if weight is None or not plain or (self._has(node, 2) and bias is None):
            raise _UnknownError
        by_row = bool(node.attributes.get_int("transB", 0))
        if bias is not None and bias.shape[-1:] != weight.shape[not by_row : 2 - by_row]:
            raise _UnknownError
        self._read(node, weight.shape[int(by_row)], int(by_row))
        return self._write(node, weight if by_row else weight.T, int(not by_row), 2)

    def _matmul(self, node: ir.Node) -> Layout | None:
        layout, weight = self._layout(node), self._weight(node, 1)
        if weight is None or weight.ndim != 2 or layout is None or layout.rank != 2:
            raise _UnknownError
        self._read(node, weight.shape[0], 0)
        return self._write(node, weight.T, 1, 2)

    def _read(self, node: ir.Node, entries: int, axis: int) -> None:
        """The weights have an entry for every channel, or for every element of one."""
        layout = self._layout(node)
        if layout is None:
            return
        if entries % self.found.total(layout):
            self._keep_operands(node)
        else:
            self._cut(node, 1, axis, layout)

    def _write(self, node: ir.Node, rows: Array, axis: int, rank: int) -> Layout:
        """The weights make channels of their own; a bias has one entry for each."""
        group = self.found.new(len(rows))
        layout = Layout((group,), rank)
        self.found.writers.append(Writer(node, group, rows))
        self._cut(node, 1, axis, layout)
        if self._has(node, 2):
            bias = constant(node.inputs[2])
            assert bias is not None
            self._cut(node, 2, bias.ndim - 1, layout)
        return layout

    def _pass_on(self, node: ir.Node) -> Layout | None:
        return self._layout(node)

    def _norm(self, node: ir.Node) -> Layout | None:
        layout = self._layout(node)
        indices = range(1, NORMS[node.op_type])
        if layout is None or any(self._weight(node, index) is None for index in indices):
            raise _UnknownError
        for index in indices:
            self._cut(node, index, 0, layout)
        return layout

    def _join(self, node: ir.Node) -> Layout | None:
        """Operands of the same channels, and constants; one with a single channel is spread."""
        layouts: list[Layout] = []
        vectors: list[tuple[int, Array]] = []
        for index, value in enumerate(node.inputs):
            layout, array = self._layout(node, index), constant(value)
            if layout is not None:
                layouts.append(layout)
            elif array is None:
                raise _UnknownError
            else:
                vectors.append((index, array))
        if not layouts:
            return None
        widest = max(layouts, key=self.found.total)
        if not all(self._joins(widest, layout) for layout in layouts):
            raise _UnknownError
        cuts = [(index, _channel_axis(array, widest.rank)) for index, array in vectors]
        for index, axis in cuts:
            if axis is not None and not self._has_channels(node, index, axis, widest):
                raise _UnknownError
        for index, axis in cuts:
            if axis is not None:
                self._cut(node, index, axis, widest)
        return widest

    def _joins(self, widest: Layout, other: Layout) -> bool:
        """Whether two operands fit each other; their channels are then one."""
        if (widest.rank, widest.flattened) != (other.rank, other.flattened):
            return False
        if self.found.total(other) == 1 < self.found.total(widest):
            return True
        sizes = [self.found.sizes[group] for group in widest.groups]
        if sizes != [self.found.sizes[group] for group in other.groups]:
            return False
        for one, another in zip(widest.groups, other.groups, strict=True):
            self.found.unite(one, another)
        return True

    def _has_channels(self, node: ir.Node, index: int, axis: int, layout: Layout) -> bool:
        """Whether a constant that only this node reads has entries for all channels on an axis."""
        array = self._weight(node, index)
        return array is not None and array.shape[axis] % self.found.total(layout) == 0

    def _concat(self, node: ir.Node) -> Layout | None:
        layouts = [self._layout(node, index) for index in range(len(node.inputs))]
        known = [layout for layout in layouts if layout is not None]
        axis = node.attributes.get_int("axis", 1)
        ranks = {layout.rank for layout in known}
        if (
            len(known) != len(layouts)
            or len(ranks) != 1
            or any(layout.flattened for layout in known)
        ):
            raise _UnknownError
        (rank,) = ranks
        if axis % rank != 1:
            raise _UnknownError
        return Layout(tuple(group for layout in known for group in layout.groups), rank)

    def _flatten(self, node: ir.Node) -> Layout | None:
        layout = self._layout(node)
        if layout is None or not _flattens(node):
            raise _UnknownError
        if node.op_type == "Reshape":
            self.found.flattenings.append(node)
        return Layout(layout.groups, 2, flattened=layout.flattened or layout.rank > 2)

    def _reduce(self, node: ir.Node) -> Layout | None:
        """Reductions of axes behind the channels."""
        layout = self._layout(node)
        axes = constant(node.inputs[1]) if self._has(node, 1) else None
        if layout is None or axes is None:
            raise _UnknownError
        reduced = {int(axis) % layout.rank for axis in np.ravel(axes)}
        if reduced & {0, 1} or not reduced:
            raise _UnknownError
        squeezed = node.op_type == "Squeeze" or not node.attributes.get_int("keepdims", 1)
        rank = layout.rank - (len(reduced) if squeezed else 0)
        return Layout(layout.groups, rank, layout.flattened)


def _channel_axis(array: Array, rank: int) -> int | None:
    """The axis of a constant operand that meets axis 1 of a value; none where it is spread."""
    axis = 1 - (rank - array.ndim)
    return axis if 0 <= axis < array.ndim and array.shape[axis] > 1 else None


def _flattens(node: ir.Node) -> bool:
    """Whether a node makes (batch, everything else) of its operand."""
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) == 1
    target = constant(node.inputs[1])
    source = node.inputs[0]
    if target is None or source is None or np.size(target) != 2:
        return False
    wanted: Sequence[int] = [int(size) for size in target]
    kind = known_type(source)
    if kind is None:
        return wanted == [0, -1] and not node.attributes.get_int("allowzero", 0)
    return wanted[0] in (0, -1, kind.shape[0]) and wanted[1] in (-1, prod(kind.shape[1:]))
