"""Groups of a region that compute between dequantised operands and a quantised result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.types import OpCall, Region, RegionNode, TensorType
from coexec.processors.opencl.fusion.integer_operators import MIDDLE, Steps

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
ACTIVATIONS = ("Relu", "Clip")
VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
FLOAT = np.dtype(np.float32)
PLANES = 4
"""Rank of (N, C, H, W)."""
LIMITS = (0, 255)


@dataclass(frozen=True)
class Core:
    """An operator ``call`` on quantised tensors ``operands`` with a quantised ``result``.

    ``index`` is the operator's node, ``indices`` are those of the whole group, its dequantisations
    not among them: others may read them, too. ``weights`` and ``bias`` name constants ("" where
    there is none), ``bounds`` are those of the result's bytes, ``view``: only the shape changes.
    """

    call: OpCall
    index: int
    indices: tuple[int, ...]
    operands: tuple[str, ...]
    result: str
    bounds: tuple[int, int]
    kinds: tuple[str, ...]
    weights: str = ""
    bias: str = ""
    view: bool = False


class Cores:
    """All groups of a region in order, and the steps of its quantised tensors."""

    def __init__(self, region: Region, readers: Mapping[str, Sequence[int]]) -> None:
        self.region, self.nodes, self.readers = region, region.nodes, readers
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.outputs}
        self.steps: dict[str, Steps] = {}
        self.sources: dict[str, str] = {}
        self.found: list[Core] = []
        for index, node in enumerate(self.nodes):
            if node.call.identifier == QUANTIZE:
                self._quantisation(index, node)
            elif node.call.identifier == DEQUANTIZE and self._undoes(node):
                self.sources[node.outputs[0]] = node.inputs[0]

    def _undoes(self, node: RegionNode) -> bool:
        """Whether a dequantisation has the steps of its operand.

        Bytes that come from elsewhere (another region, a cut, a pool that reads them as they are)
        have those of the first that reads them.
        """
        name, steps = node.inputs[0], self._steps(node, node.call.input(0))
        if steps is None or name in self.region.constants or node.call.output(0).dtype != FLOAT:
            return False
        return self.steps.setdefault(name, steps) == steps

    def _quantisation(self, index: int, node: RegionNode) -> None:
        steps = self._steps(node, node.call.output(0))
        if steps is None or node.call.input(0).dtype != FLOAT:
            return
        self.steps[node.outputs[0]] = steps
        core = self._core(index, node, steps)
        if core is not None:
            self.found.append(core)

    def _steps(self, node: RegionNode, kind: TensorType) -> Steps | None:
        """One known scale and zero point of bytes, as those of unsigned bytes."""
        if kind.dtype not in (np.uint8, np.int8) or kind.rank not in (2, PLANES) or not kind.size:
            return None
        scale = self.region.constants.get(node.inputs[1])
        zero = self.region.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        absent = len(node.inputs) < 3 or not node.inputs[2]
        if scale is None or scale.size != 1 or scale.dtype != np.float32:
            return None
        if not absent and (zero is None or zero.size != 1):
            return None
        whole = 0 if zero is None else int(zero.reshape(()))
        return Steps(float(scale.reshape(())), whole + (MIDDLE if kind.dtype == np.int8 else 0))

    def _core(self, index: int, node: RegionNode, steps: Steps) -> Core | None:
        """The group in front of a quantisation."""
        indices, name, bounds, kinds = [index], node.inputs[0], LIMITS, [QUANTIZE]
        inner = self._inner(name)
        if inner is not None and self.nodes[inner].call.identifier in ACTIVATIONS:
            found = _bounds(self.nodes[inner].call, steps)
            if found is None:
                return None
            bounds = found
            kinds.append(self.nodes[inner].call.op_type)
            indices.append(inner)
            name = self.nodes[inner].inputs[0]
            inner = self._inner(name)
        if inner is None:
            return None
        indices.append(inner)
        core = self._of(inner, self.nodes[inner])
        if core is None:
            return None
        kinds.append(self.nodes[inner].call.op_type)
        return replace(
            core,
            indices=tuple(sorted(indices)),
            result=node.outputs[0],
            bounds=bounds,
            kinds=tuple(reversed(kinds)),
        )

    def _inner(self, name: str) -> int | None:
        """The node that makes a tensor which one other node reads, and nobody outside."""
        alone = len(self.readers.get(name, ())) == 1 and name not in self.region.outputs
        return self.producer.get(name) if alone else None

    def _of(self, index: int, node: RegionNode) -> Core | None:
        """An operator whose operands are dequantised, without what stands behind it."""
        call, kind = node.call, node.call.identifier
        plain = Core(call, index, (), (), "", LIMITS, ())
        if kind in ("Conv", "Gemm", "MatMul"):
            source = self.sources.get(node.inputs[0])
            as_conv = as_convolution(call)
            if source is None or as_conv is None or node.inputs[1] not in self.region.constants:
                return None
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
            if bias and bias not in self.region.constants:
                return None
            return replace(
                plain, call=as_conv, operands=(source,), weights=node.inputs[1], bias=bias
            )
        operands = tuple(self.sources.get(name, "") for name in node.inputs)
        if kind in VIEWS:
            known = _is_one_position(call) and bool(operands[0])
            return replace(plain, operands=operands[:1], view=True) if known else None
        if not all(operands):
            return None
        fits = call.output(0).rank == PLANES and {
            "Add": all(kind == call.output(0) for kind in call.inputs),
            "Concat": int(call.attribute("axis", 0)) in (1, 1 - PLANES),
            "GlobalAveragePool": True,
            "MaxPool": not call.has_output(1),
        }.get(kind, False)
        return replace(plain, operands=operands) if fits else None


def _is_one_position(call: OpCall) -> bool:
    """Whether a view leaves samples and channels as they are, and there is nothing else."""
    kinds = (call.input(0), call.output(0))
    flat = all(kind.rank in (2, PLANES) and set(kind.shape[2:]) <= {1} for kind in kinds)
    return flat and kinds[0].shape[:2] == kinds[1].shape[:2]


def _bounds(call: OpCall, steps: Steps) -> tuple[int, int] | None:
    """Bytes that an activation leaves; ``None`` where its bounds are not known."""
    if call.identifier == "Relu":
        return int(steps.bytes_of(0.0)), LIMITS[1]
    bounds = []
    for index, limit in zip((1, 2), LIMITS, strict=True):
        value = call.constant(index)
        if call.has_input(index) and value is None:
            return None
        bounds.append(limit if value is None else int(steps.bytes_of(value.reshape(()))))
    return bounds[0], bounds[1]


def as_convolution(call: OpCall) -> OpCall | None:
    """A convolution over two axes, or a linear layer as one of a single position."""
    x, weights, y = call.input(0), call.input(1), call.output(0)
    if call.identifier == "Conv":
        return call if x.rank == PLANES else None
    if x.rank != 2 or weights.rank != 2:
        return None
    plain = not call.attribute("transA", 0) and all(
        float(call.attribute(name, 1.0)) == 1.0 for name in ("alpha", "beta")
    )
    if not plain or (
        call.has_input(2) and call.input(2).shape not in ((y.shape[1],), (1, y.shape[1]))
    ):
        return None
    spread = (1, 1)
    return replace(
        call,
        op_type="Conv",
        inputs=(
            x.with_shape((*x.shape, *spread)),
            weights.with_shape((y.shape[1], x.shape[1], *spread)),
        ),
        attributes={"transposed": not call.attribute("transB", 0)},
        outputs=(y.with_shape((*y.shape, *spread)),),
        constants={},
    )
