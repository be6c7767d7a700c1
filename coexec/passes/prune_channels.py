"""Remove whole channels of convolutions and products, those with the smallest weights.

Importance is the sum of the absolute weights that make a channel (Li and others, "Pruning filters
for efficient ConvNets", 2017), times what a batch normalisation behind them scales it by. Channels
that can only go together (:mod:`coexec.passes.channel_groups`) are judged together. The result is
an ordinary model that is smaller: any engine runs it, and training can go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.batch_norm import EPSILON
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import constant_of, set_type
from coexec.passes.channel_groups import ChannelGroups, Layout, Writer
from coexec.passes.find_channel_groups import find_channel_groups
from coexec.passes.fold_batch_norm import constant, set_input


@dataclass(frozen=True)
class PrunedGroup:
    """Channels that are decided about together, and the nodes whose weights make them.

    ``reason`` says why they all stayed; it is empty where some went.
    """

    nodes: tuple[str, ...]
    before: int
    after: int
    reason: str = ""


def prune_channels(model: ir.Model, share: float, multiple: int = 1) -> list[PrunedGroup]:
    """Remove ``share`` of the channels of every group that allows it; in place.

    What is left is a multiple of ``multiple`` (vectors stay full) and never more channels are
    removed than ``share`` says. Outputs of the model keep their shapes. Returns all groups.

    Raises:
        UsageError: the share is not between 0 and 1, or the multiple is below 1.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share of channels to prune must lie between 0 and 1, not {share}")
    if multiple < 1:
        raise UsageError(f"channels cannot be left in multiples of {multiple}")
    found = find_channel_groups(model.graph)
    masks: dict[int, Array] = {}
    pruned = []
    for group, writers in _by_group(found).items():
        size = found.sizes[group]
        left = _left(size, share, multiple)
        reason = found.kept_whole.get(group, "")
        if not reason and left == size:
            reason = f"too few to remove {share:.0%} and leave a multiple of {multiple}"
        masks[group] = np.ones(size, bool) if reason else _largest(writers, left)
        names = tuple(str(writer.node.name) for writer in writers)
        pruned.append(PrunedGroup(names, size, int(masks[group].sum()), reason))
    _apply(model.graph, found, masks)
    return pruned


def _by_group(found: ChannelGroups) -> dict[int, list[Writer]]:
    """Nodes that make channels, by the group that stands for theirs."""
    groups: dict[int, list[Writer]] = {}
    for writer in found.writers:
        groups.setdefault(found.find(writer.group), []).append(writer)
    return groups


def _left(size: int, share: float, multiple: int) -> int:
    """Channels that stay: one at least."""
    least = max(1, ceil(size * (1 - share) - 1e-9))
    return min(size, ceil(least / multiple) * multiple)


def _largest(writers: list[Writer], left: int) -> Array:
    """The channels that stay, as a mask; of equal ones the first."""
    scores = sum(_importance(writer) for writer in writers)
    mask = np.zeros(np.shape(scores), bool)
    mask[np.argsort(-np.asarray(scores), kind="stable")[:left]] = True
    return mask


def _importance(writer: Writer) -> Array:
    """Of each channel a node makes, relative to their mean: (channels,)."""
    sums = np.abs(np.asarray(writer.rows, np.float64)).sum(axis=1) * _norm_factor(writer.node)
    mean = float(sums.mean())
    return np.asarray(sums / mean if mean > 0 else sums)


def _norm_factor(node: ir.Node) -> Array:
    """What a batch normalisation right behind a node multiplies each channel by."""
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization" or readers[0].domain:
        return np.ones(())
    norm = readers[0]
    scale, variance = constant(norm.inputs[1]), constant(norm.inputs[4])
    if scale is None or variance is None:
        return np.ones(())
    epsilon = norm.attributes.get_float("epsilon", EPSILON)
    return np.abs(np.asarray(scale, np.float64)) / np.sqrt(
        np.asarray(variance, np.float64) + epsilon
    )


def _apply(graph: ir.Graph, found: ChannelGroups, masks: dict[int, Array]) -> None:
    """Cut weights, and correct what names a number of channels."""

    def mask_of(layout: Layout) -> Array:
        return np.concatenate([masks[found.find(group)] for group in layout.groups])

    for cut in found.cuts:
        array = constant_of(cut.value)
        assert array is not None
        mask = mask_of(cut.layout)
        entries = np.repeat(mask, array.shape[cut.axis] // len(mask))
        _set_array(cut.value, np.compress(entries, array, cut.axis))
    for node in found.depthwise:
        channels = int(mask_of(found.layouts[node.outputs[0]]).sum())
        node.attributes.add(ir.AttrInt64("group", channels))
    for value, layout in found.layouts.items():
        _narrow(value, mask_of(layout))
    if found.flattenings:
        target = GraphBuilder(graph, "forward").constant([0, -1], np.dtype(np.int64))
        for node in found.flattenings:
            set_input(node, 1, target)
            node.attributes.pop("allowzero", None)


def _set_array(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    set_type(value, TensorType.of(array))


def _narrow(value: ir.Value, mask: Array) -> None:
    """The size of axis 1 where the value's shape says it."""
    if value.shape is None or not isinstance(value.shape[1], int):
        return
    dims = list(value.shape)
    dims[1] = value.shape[1] // len(mask) * int(mask.sum())
    value.shape = ir.Shape(dims)
