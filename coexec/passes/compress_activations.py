"""Activations that are kept for the backward pass alone are kept in fewer bytes.

Exact: taps of maximum pooling (``pool_taps``) and bits of masks (``pack_masks``). Lossy, of what
they leave: blocks of 8- or 4-bit integers after Chen et al., "ActNN", 2021 (arXiv 2104.14129), and
average-pooled inputs of convolutions (arXiv 2409.11902). A tensor is compressed behind its last
reader in the forward pass and made again right before it is read in the backward pass. Only
gradients of parameters and of normalisation see the difference: outputs and losses of a step do
not, nor do the gradients of Relu and Clip, since both ends of a block are kept exactly.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from coexec.core.types import TensorType
from coexec.ops.compressed import BLOCK, code_bytes
from coexec.ops.elementwise import is_float
from coexec.ops.node import type_of
from coexec.passes.insert import Inserter, New
from coexec.passes.kept import (
    Kept,
    Use,
    dependents,
    forward_readers,
    kept_bytes,
    kept_tensors,
)
from coexec.passes.pack_masks import pack_masks
from coexec.passes.pool_taps import pool_taps

Activations = Literal["full", "mask", "bits", "int8", "int4", "pooled", "auto"]
"""How activations are kept: as they are; by exact techniques alone; ``bits``: the same, with masks
also where the tensor itself is kept, so that it can go sooner; as blocks of integers; inputs
of convolutions average-pooled and the rest in 8 bits; ``auto``: by exact techniques, and where that
is not enough, the largest in 8 bits."""

LEAST_ELEMENTS = 16 * BLOCK
"""Of a tensor that is compressed: smaller ones are not worth two kernels."""

LEFT_SHARE = 0.04
"""Of the bytes kept: the smallest tensors up to this stay as they are. They are many in deep
networks, and two kernels for each would buy next to no memory."""

AUTO_SHARE = 0.4
"""Of the bytes in full: ``auto`` compresses the largest tensors until no more is kept."""

EXACT = ("full", "mask", "bits")
"""Ways that change no gradient."""

NEIGHBOURS = 12
"""Nodes between two readers from which on a tensor is made again rather than held."""

SPARED = ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "LogSoftmax")
"""Operators whose results are read through exponentials: they stay as they are."""

COMPARING = ("MaxPoolGrad", "Equal")
"""Readers that look for the largest of several elements: rounding would make others the largest."""

POOLED_READERS = ("ConvWeightGrad",)


def compress_activations(model: ir.Model, how: Activations, exempt: Collection[str] = ()) -> int:
    """Keep activations of a training step in fewer bytes; in place. Returns how many tensors.

    ``exempt`` names graph inputs (labels) of which nothing that depends on them is compressed.
    """
    if how == "full":
        return 0
    graph = model.graph
    full = kept_bytes(graph)
    changed = pool_taps(graph)
    RemoveUnusedNodesPass()(model)
    changed += pack_masks(graph, _always_masked(graph, how))
    RemoveUnusedNodesPass()(model)
    if how not in EXACT:
        enough = AUTO_SHARE * full if how == "auto" else 0
        changed += _Lossy(graph, how, exempt).run(int(enough))
    return changed


def _always_masked(graph: ir.Graph, how: Activations) -> set[str]:
    """Names of tensors whose masks are kept as bits whatever else is kept of them."""
    if how == "bits":
        return {str(kept.value.name) for kept in kept_tensors(graph)}
    return _pooled_maps(graph) if how == "pooled" else set()


def _pooled_maps(graph: ir.Graph) -> set[str]:
    """Names of tensors that are to be kept average-pooled: zero is lost there, so masks are bits.

    A tensor of which a comparison is all that is kept besides.
    """
    return {str(kept.value.name) for kept in kept_tensors(graph) if any(map(_pools, kept.uses))}


def _pools(use: Use) -> bool:
    kind = type_of(use.value)
    read = use.node.op_type in POOLED_READERS and use.position == 0
    return read and kind.rank > 2 and min(kind.shape[2:]) > 1


class _Lossy:
    def __init__(self, graph: ir.Graph, how: Activations, exempt: Collection[str]) -> None:
        self.graph, self.how = graph, how
        self.inserter = Inserter(graph)
        self.exempt = dependents(graph, exempt)

    def run(self, enough: int) -> int:
        """Compress what suits, the largest first, until no more than ``enough`` bytes are kept."""
        total = left = kept_bytes(self.graph)
        worth, chosen = LEFT_SHARE * total, list[Kept]()
        for each in sorted(kept_tensors(self.graph), key=lambda kept: -kept.nbytes):
            if total <= enough or left <= worth:
                break
            left -= each.nbytes
            if self._suits(each):
                chosen.append(each)
                total -= each.nbytes - self._small_bytes(each)
        self.places = {node: number for number, node in enumerate(self.graph)}
        for each in chosen:
            self._compress(each)
        return len(chosen)

    def _suits(self, kept: Kept) -> bool:
        kind, producer = type_of(kept.value), kept.value.producer()
        return (
            is_float(kind.dtype)
            and kind.size >= LEAST_ELEMENTS
            and producer is not None
            and producer.op_type not in SPARED
            and kept.value not in self.exempt
            and all(use.node.op_type not in COMPARING for use in kept.uses)
        )

    def _small_bytes(self, kept: Kept) -> int:
        kind = type_of(kept.value)
        return code_bytes(kind.size, kind.dtype, 4 if self.how == "int4" else 8)

    def _compress(self, kept: Kept) -> None:
        pools = self.how == "pooled" and all(map(_pools, kept.uses))
        small = self._pooled(kept) if pools else self._blocks(kept)
        for uses in self._clusters(kept.uses):
            first = min((use.node for use in uses), key=self.places.__getitem__)
            self._restore(kept, uses, first, small)

    def _clusters(self, uses: list[Use]) -> list[list[Use]]:
        """Uses that are close to each other, in order."""
        found: list[list[Use]] = []
        for use in sorted(uses, key=lambda use: self.places[use.node]):
            place = self.places[use.node]
            if found and place - self.places[found[-1][-1].node] <= NEIGHBOURS:
                found[-1].append(use)
            else:
                found.append([use])
        return found

    def _last_reader(self, value: ir.Value) -> ir.Node:
        """The last node of the forward pass that reads a tensor, else the one that makes it."""
        producer = value.producer()
        assert producer is not None
        readers = [node for node in forward_readers(value) if node in self.places]
        return max((producer, *readers), key=self.places.__getitem__)

    def _blocks(self, kept: Kept) -> tuple[ir.Value, ...]:
        bits = {"bits": 4 if self.how == "int4" else 8}
        anchor = self._last_reader(kept.value)
        return self.inserter.behind(anchor, New("CompressBlocks", [kept.value], bits, outputs=2))

    def _pooled(self, kept: Kept) -> tuple[ir.Value, ...]:
        rank = type_of(kept.value).rank - 2
        window = {"kernel_shape": (2,) * rank, "strides": (2,) * rank, "ceil_mode": 1}
        anchor = self._last_reader(kept.value)
        return self.inserter.behind(anchor, New("AveragePool", [kept.value], window, domain=""))

    def _restore(
        self, kept: Kept, uses: list[Use], first: ir.Node, small: tuple[ir.Value, ...]
    ) -> None:
        """Make the tensor again before ``first`` and let ``uses`` read that."""
        kind = type_of(kept.value)
        if len(small) == 1:
            whole = self._upsampled(small[0], kind, first)
        else:
            bits = {"bits": 4 if self.how == "int4" else 8}
            attributes = {**bits, "shape": kind.shape, "dtype": kind.dtype.name}
            (whole,) = self.inserter.before(first, New("DecompressBlocks", small, attributes))
        views: dict[tuple[int, ...], ir.Value] = {kind.shape: whole}
        for use in uses:
            shape = type_of(use.value).shape
            if shape not in views:
                constant = self.inserter.builder.constant(np.array(shape, np.int64), "int64")
                reshape = ("Reshape", [whole, constant])
                (views[shape],) = self.inserter.before(first, New(*reshape, domain=""))
            use.node.replace_input_with(use.position, views[shape])

    def _upsampled(self, small: ir.Value, kind: TensorType, first: ir.Node) -> ir.Value:
        """Each average in the places that it was taken of."""
        sizes = self.inserter.builder.constant(np.array(kind.shape, np.int64), "int64")
        how = {
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric",
        }
        operands = [small, None, None, sizes]
        (whole,) = self.inserter.before(first, New("Resize", operands, how, domain=""))
        return whole
