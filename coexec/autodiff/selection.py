"""What is trained: parameters by name, kind, layer or output channels.

Each item of ``trainable`` adds parameters (none: all of them are trained):

=====================  ==========================================================================
``PATTERN``            names that match a shell pattern: ``fc*``, ``layer4.*.weight``; a scalar
                       only by its whole name
``PATTERN[A:B]``       of these the output channels A (included) to B (not included) alone
``bias``               every bias: of convolutions, products and normalisations
``last:K``             the parameters of the last K layers that have any
``layers:NAME,...``    the parameters of the layers that match these shell patterns
=====================  ==========================================================================

A layer is what parameters share in their names up to the last dot (``layer4.1.conv2``), or the node
that reads them where their names have none. A normalisation is a layer of its own.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.base.errors import GradientError
from coexec.base.names import known_names
from coexec.core.types import Array
from coexec.ops.batch_norm import statistics_of
from coexec.ops.node import PARAMETER_MARK, constant_of, is_parameter, type_of

BIAS, LAST, LAYERS = "bias", "last:", "layers:"
BIAS_POSITIONS = {
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "BatchNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": 2,
    "GroupNormalization": 2,
}
"""Which operand of an operator is its bias or offset."""

LEAST_COPIED = 64
"""Elements of a matrix from which on it is no accident that another one holds the same."""

TRANSPARENT = frozenset({"Cast", "Identity"})
"""What may stand between a parameter and the node that it belongs to."""


@dataclass(frozen=True)
class Channels:
    """Output channels ``begin`` to ``end`` (not included) along ``axis`` of a parameter."""

    axis: int
    begin: int
    end: int


@dataclass(frozen=True)
class Selected:
    """A parameter to train: all of it, or some of its output channels."""

    value: ir.Value
    channels: Channels | None = None

    @property
    def name(self) -> str:
        return str(self.value.name)


def select(model: ir.Model, trainable: Sequence[str]) -> list[Selected]:
    """Parameters to train in the order in which the model has them.

    Candidates are weights of rank >= 1 without batch statistics and graph constants; scalars where
    they are known to be weights, or are named as they are.

    Raises:
        GradientError: an item that selects nothing (known names are listed) or channels that a
            parameter does not have.
    """
    candidates = Candidates(model)
    whole: set[ir.Value] = set()
    parts: dict[ir.Value, Channels] = {}
    for item in trainable:
        pattern, bounds = _bounds(item)
        found = candidates.matching(pattern, item)
        if bounds is None:
            whole.update(found)
            continue
        for value in found:
            channels = _channels(value, bounds, item)
            if parts.setdefault(value, channels) != channels:
                raise GradientError(f"--trainable: two ranges of channels for {value.name!r}")
    if not trainable:
        whole.update(candidates.values)
    return [
        Selected(value, None if value in whole else parts[value])
        for value in (*candidates.values, *candidates.scalars)
        if value in whole or value in parts
    ]


def shared(model: ir.Model, trainable: Sequence[str]) -> list[str]:
    """Names of parameters to train that more than one node reads: each is trained as one.

    Raises what :func:`select` does.
    """
    values = [each.value for each in select(model, trainable)]
    return [str(v.name) for v in values if len({node for node, _ in readers(v)}) > 1]


def copies(model: ir.Model, trainable: Sequence[str]) -> list[tuple[str, str]]:
    """Matrices to train of which one holds the values of the other transposed.

    Equal ones are none: a stack of layers may begin with the same values in each.

    Raises what :func:`select` does.
    """
    found: list[tuple[str, str]] = []
    seen: dict[tuple[object, ...], list[tuple[str, Array]]] = {}
    for each in select(model, trainable):
        array = constant_of(each.value)
        if array is None or array.ndim != 2 or array.size < LEAST_COPIED:
            continue
        # Both stay where they are when a matrix is transposed.
        key = (tuple(sorted(array.shape)), float(array[0, 0]), float(array[-1, -1]))
        others = seen.setdefault(key, [])
        alike = [name for name, other in others if _transposed(array, other)]
        found += [(name, each.name) for name in alike[:1]]
        others.append((each.name, array))
    return found


def _transposed(first: Array, second: Array) -> bool:
    """Whether one matrix is the other transposed, and not the same one, too."""
    return np.array_equal(first, second.T) and not (
        np.array_equal(first, second) or (first == first[0, 0]).all()
    )


class Candidates:
    """All parameters of a model that may be trained, with their layers."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        statistics = statistics_of(self.graph)
        self.values = [
            value
            for value in self.graph.initializers.values()
            if value not in statistics and is_parameter(value) and _is_trained(value)
        ]
        self.scalars = [
            value
            for value in self.graph.initializers.values()
            if is_parameter(value) and not _is_trained(value)
        ]

    def matching(self, pattern: str, item: str) -> list[ir.Value]:
        """Parameters that ``pattern`` selects.

        Raises:
            GradientError: there is none; the message quotes ``item``.
        """
        if pattern == BIAS:
            found = [value for value in self.values if is_bias(value)]
        elif pattern.startswith(LAST):
            found = self._last(pattern.removeprefix(LAST), item)
        elif pattern.startswith(LAYERS):
            found = self._in_layers(pattern.removeprefix(LAYERS), item)
        else:
            found = [v for v in self.values if fnmatch.fnmatchcase(str(v.name), pattern)]
            found += [value for value in self.scalars if value.name == pattern]
        if not found:
            known = known_names(pattern, [str(value.name) for value in self.values])
            raise GradientError(f"--trainable {item!r} matches no parameter; {known}")
        return found

    def layers(self) -> dict[str, list[ir.Value]]:
        """Parameters by layer, in the order in which the graph reads them."""
        order = {node: number for number, node in enumerate(self.graph)}
        first = {v: min((order[n] for n, _ in readers(v)), default=-1) for v in self.values}
        layers: dict[str, list[ir.Value]] = {}
        for value in sorted(self.values, key=first.__getitem__):
            layers.setdefault(layer_of(value), []).append(value)
        return layers

    def _last(self, text: str, item: str) -> list[ir.Value]:
        if not text.isdecimal() or not int(text):
            raise GradientError(f"--trainable {item!r}: last:K wants a number of layers above 0")
        return [value for layer in list(self.layers().values())[-int(text) :] for value in layer]

    def _in_layers(self, text: str, item: str) -> list[ir.Value]:
        layers, found = self.layers(), []
        for pattern in filter(None, map(str.strip, text.split(","))):
            matching = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
            if not matching:
                known = known_names(pattern, layers)
                raise GradientError(f"--trainable {item!r}: no layer {pattern!r}; {known}")
            found += [value for name in matching for value in layers[name]]
        return found


def _is_trained(value: ir.Value) -> bool:
    """Whether a weight is surely one, or can be taken for one: scalars are mostly constants."""
    return bool(type_of(value).rank) or PARAMETER_MARK in value.metadata_props


def exactly(name: str) -> str:
    """The item that selects the parameter of this name and no other."""
    return f"[{name[0]}]{glob.escape(name[1:])}"


def layer_of(value: ir.Value) -> str:
    """The layer that a parameter belongs to."""
    stem = str(value.name).rpartition(".")[0]
    if stem:
        return stem
    node = next((node for node, _ in readers(value)), None)
    return str(value.name) if node is None else str(node.name or node.op_type)


def is_bias(value: ir.Value) -> bool:
    """Whether some node adds a parameter as a vector: a bias, or the offset of a normalisation."""
    for node, position in readers(value):
        if node.domain:
            continue
        if BIAS_POSITIONS.get(node.op_type) == position:
            return True
        if node.op_type == "Add" and type_of(value).rank == 1:
            return True
    return False


def readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Nodes that read a parameter, and at which operand; casts are looked through."""
    for node, position in value.uses():
        if node.op_type in TRANSPARENT and not node.domain:
            yield from readers(node.outputs[0])
        else:
            yield node, position


def _bounds(item: str) -> tuple[str, tuple[int, int] | None]:
    """An item without its range of channels, and that range."""
    found = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", item)
    if found is None:
        return item, None
    return found[1], (int(found[2]), int(found[3]))


def _channels(value: ir.Value, bounds: tuple[int, int], item: str) -> Channels:
    axis = channel_axis(value)
    begin, end = bounds
    count = type_of(value).shape[axis]
    if not begin < end <= count:
        raise GradientError(
            f"--trainable {item!r}: {value.name!r} has output channels 0 to {count} (not included)"
        )
    return Channels(axis, begin, end)


def channel_axis(value: ir.Value) -> int:
    """The axis of a parameter's output channels."""
    rank = type_of(value).rank
    for node, position in readers(value):
        if node.domain or position != 1 or rank < 2:
            continue
        if node.op_type == "Gemm":
            return 0 if _is_set(node, "transB") else 1
        if node.op_type == "MatMul":
            return rank - 1
        if node.op_type == "ConvTranspose":
            return 1
    return 0


def _is_set(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())
