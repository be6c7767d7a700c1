"""Random operands of a call, in the ranges that its operator's examples draw from."""

from __future__ import annotations

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import Sample
from coexec.processors.opencl.fusion.activated import activated_of
from coexec.processors.opencl.fusion.biased import BIASED
from coexec.processors.opencl.fusion.chain import CHAIN, FUSED, Source, chain_of
from coexec.processors.opencl.fusion.operators import ON_BYTES, definition

BYTES = 256
"""As many there are."""


def draw_operands(call: OpCall, rng: np.random.Generator) -> dict[str, Array]:
    """Data for the inputs of :meth:`Region.alone`; of operators on bytes, all bytes there are."""
    smallest = BYTES if call.identifier in ON_BYTES else _smallest(call)
    return {
        f"x{i}": _draw(kind, _range(call, i, kind), smallest, rng)
        for i, kind in enumerate(call.inputs)
        if kind is not None and i not in call.constants
    }


def _smallest(call: OpCall) -> int:
    """An integer may be an index: below every size there is, it is one into any axis."""
    return min((size for kind in call.inputs if kind is not None for size in kind.shape), default=1)


def _range(call: OpCall, index: int, kind: TensorType) -> tuple[float, float]:
    """[low, high) of the first example with a random operand of this kind in this place."""
    if call.identifier in ON_BYTES:
        return (0.0, float(BYTES)) if kind.dtype == np.uint8 else (-1.0, 1.0)
    if call.domain == FUSED and call.identifier != BIASED.identifier:
        part, index = _reader(call, index)
        return _range(part, index, kind)
    for example in definition(call).examples:
        sample = example.inputs[index] if index < len(example.inputs) else None
        if isinstance(sample, Sample) and np.dtype(sample.dtype).kind == kind.dtype.kind:
            return sample.low, sample.high
    return -1.0, 1.0


def _reader(call: OpCall, index: int) -> tuple[OpCall, int]:
    """The part of a fused call that reads an operand first, and as which of its own."""
    if call.identifier != CHAIN.identifier:
        return activated_of(call).call, index
    source = Source("operand", index)
    steps = (step for step in chain_of(call).steps if source in step.sources)
    step = next(steps)
    return step.call, step.sources.index(source)


def _draw(
    kind: TensorType, bounds: tuple[float, float], smallest: int, rng: np.random.Generator
) -> Array:
    low, high = bounds
    if kind.dtype.kind == "f":
        values = rng.random(kind.shape, dtype=np.float32)
        values *= high - low
        values += low
        return values.astype(kind.dtype, copy=False)
    if kind.dtype.kind == "b":
        return rng.integers(0, 2, kind.shape).astype(kind.dtype)
    first = max(int(low), 0)
    last = max(min(int(high), smallest), first + 1)
    return rng.integers(first, last, kind.shape).astype(kind.dtype)
