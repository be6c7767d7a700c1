"""What a tuned value is filed under: an operator, the kind of call, and its sizes.

Calls of one *kind* (element types, kernel, strides, groups, broadcast pattern) differ in their
*sizes* only. What was tuned for one size is a fair guess for a size close by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import inf, log2, prod, sqrt
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.matmul import gemm_sizes
from coexec.processors.opencl.fusion.chain import FUSED
from coexec.processors.opencl.fusion.integer_matmul import BIAS, INTEGER_MATMUL, WEIGHTS
from coexec.processors.opencl.fusion.integer_operators import CONV, layer_of
from coexec.processors.opencl.fusion.operators import definition, title

CONVOLUTIONS = ("Conv", "ConvTranspose", "coexec::ConvInputGrad", "coexec::ConvWeightGrad")
LONGEST = 60
"""Characters of an attribute's text; a longer one is replaced by its digest."""
NO_MEANING = ("name", "flop", "like")
"""Fields of nested calls that say nothing about what they compute."""


@dataclass(frozen=True)
class CallKey:
    """Operator, kind and sizes of a call; equal for calls that one tuned value serves."""

    operator: str
    kind: str
    sizes: tuple[int, ...]

    @property
    def text(self) -> str:
        """``Conv 8x64x64x56x56``."""
        return f"{self.operator.rpartition('::')[2]} {_times(self.sizes)}"

    def distance(self, other: CallKey) -> float:
        """Euclidean distance of the sizes in log2: 1 where one size is doubled.

        Infinite for another operator or another kind.
        """
        same = (self.operator, self.kind) == (other.operator, other.kind)
        if not same or len(self.sizes) != len(other.sizes):
            return inf
        pairs = zip(self.sizes, other.sizes, strict=True)
        return sqrt(sum(log2(max(a, 1) / max(b, 1)) ** 2 for a, b in pairs))


def key_of(call: OpCall) -> CallKey:
    """The key of a typed call."""
    describe = _DESCRIBERS.get(call.identifier, _any_call)
    words, sizes = describe(call)
    types = ",".join("-" if kind is None else kind.dtype.name for kind in call.inputs)
    results = ",".join("-" if kind is None else kind.dtype.name for kind in call.outputs)
    kind = " ".join(filter(None, (f"{types}:{results}", *words)))
    return CallKey(call.identifier, kind, tuple(int(size) for size in sizes))


Described = tuple[Sequence[str], Sequence[int]]


def _convolution(call: OpCall) -> Described:
    """Sizes: batch, input channels, output channels, spatial input."""
    g = ConvGeometry.of(call)
    depthwise = g.group == g.in_channels > 1
    words = (
        f"kernel={_times(g.kernel)}",
        f"strides={_times(g.strides)}",
        f"pads={_times(g.pads_begin)},{_times(g.pads_end)}",
        f"dilations={_times(g.dilations)}" if set(g.dilations) != {1} else "",
        "depthwise" if depthwise else f"group={g.group}" if g.group > 1 else "",
    )
    return words, (g.batch, g.in_channels, g.out_channels, *g.in_size)


def _integer_convolution(call: OpCall) -> Described:
    """As of the convolution that bytes compute: scales and zero points change no time."""
    own = layer_of(call)
    words, sizes = _convolution(own.core)
    return (*words, "residual" if own.residual else ""), sizes


def _gemm(call: OpCall) -> Described:
    """Sizes: M, N, K."""
    m, n, k = gemm_sizes(call)
    c = _pattern(call.input(2).shape, (m, n)) if call.has_input(2) else ""
    words = [f"{name}=1" for name in ("transA", "transB") if call.attribute(name, 0)]
    return (*words, f"c={c}" if c else ""), (m, n, k)


def _matmul(call: OpCall) -> Described:
    """Sizes: batch, M, N, K; a vector is a matrix of one row or column."""
    a, b, y = call.input(0).shape, call.input(1).shape, call.output(0).shape
    rows, depth = (1, *a)[-2:]
    columns = b[-1] if len(b) > 1 else 1
    batch = y[: len(y) - (len(a) > 1) - (len(b) > 1)]
    ranks = f"{min(len(a), 2)}x{min(len(b), 2)}"
    words = (ranks, *(f"{n}={_pattern(s[:-2], batch)}" for n, s in (("a", a), ("b", b)) if batch))
    return words, (prod(batch), rows, columns, depth)


def _transposed_matmul(call: OpCall) -> Described:
    """Sizes as of a MatMul; and which matrices lie transposed."""
    (*batch, rows, columns), a, b = call.output(0).shape, call.input(0).shape, call.input(1).shape
    flags = "".join(str(int(call.attribute(name, 0))) for name in ("transA", "transB"))
    words = [f"{n}={_pattern(s[:-2], tuple(batch))}" for n, s in (("a", a), ("b", b)) if batch]
    depth = a[-2 if flags[0] == "1" else -1]
    return (f"trans={flags}", *words), (prod(batch), rows, columns, depth)


def _integer_matmul(call: OpCall) -> Described:
    """Sizes: rows of all batches, columns, depth; and which operands there are."""
    depth, columns = call.input(WEIGHTS).shape
    there = "".join(str(int(call.has_input(i))) for i in range(BIAS + 1))
    return (f"operands={there}",), (call.output(0).size // columns, columns, depth)


def _any_call(call: OpCall) -> Described:
    """Sizes: the shape of the largest operand; the others by how they relate to it.

    Fused operators say what they are made of.
    """
    operands = [*call.inputs, *call.outputs]
    shapes = [kind.shape for kind in operands if kind is not None]
    largest = max(shapes, key=prod, default=())
    patterns = ["-" if kind is None else _pattern(kind.shape, largest) for kind in operands]
    parts = f"of={title(call)}" if call.domain == FUSED else ""
    words = [
        f"{name}={_text(value, shapes)}" for name, value in sorted(call.attributes.items()) if name
    ]
    return (parts, " ".join(patterns), *words, *_known_values(call, shapes)), largest


def _known_values(call: OpCall, shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """Operands whose values kernels may depend on: shapes, axes, and constants of one element."""
    wanted = definition(call).value_inputs
    return [
        f"x{i}={_text(np.asarray(value), shapes)}"
        for i, value in sorted(call.constants.items())
        if i in wanted or np.size(value) == 1
    ]


_DESCRIBERS: Mapping[str, Callable[[OpCall], Described]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "coexec::TransposedMatMul": _transposed_matmul,
    CONV.identifier: _integer_convolution,
    INTEGER_MATMUL.identifier: _integer_matmul,
}


def _pattern(shape: tuple[int, ...], whole: tuple[int, ...]) -> str:
    """Each axis against that of ``whole``, aligned at the end.

    ``=`` is as large; else, at equal rank, ``/2`` is half as large (a pooled plane), at a lower
    rank ``@1`` as large as axis 1 (a channel's values). Elsewhere, and where it is 1, the size
    itself stands.
    """
    aligned = ((0,) * len(shape) + whole)[len(whole) :]
    pairs = zip(shape, aligned, strict=True)
    return "[" + ",".join(_relation(size, other, shape, whole) for size, other in pairs) + "]"


def _relation(size: int, other: int, shape: tuple[int, ...], whole: tuple[int, ...]) -> str:
    if size == other:
        return "="
    if size > 1 and len(shape) == len(whole) and other % size == 0:
        return f"/{other // size}"
    if size > 1 and len(shape) < len(whole) and size in whole:
        return f"@{whole.index(size)}"
    return str(size)


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _text(value: Any, shapes: Sequence[tuple[int, ...]]) -> str:
    """A value as text, the same for equal ones; the shape of an operand by its position."""
    flat = value.tolist() if isinstance(value, np.ndarray) and value.size <= 16 else value
    if isinstance(flat, (list, tuple)) and len(flat) > 1 and tuple(flat) in shapes:
        return f"shape{shapes.index(tuple(flat))}"
    text = _canonical(flat, max(shapes, key=prod, default=()))
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any, largest: tuple[int, ...]) -> str:
    """Text that equal values share; types of nested calls by how they relate to ``largest``."""
    if isinstance(value, np.ndarray):
        return _array_text(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, TensorType):
        return value.dtype.name + _pattern(value.shape, largest)
    if isinstance(value, Mapping):
        items = sorted((str(key), _canonical(item, largest)) for key, item in value.items())
        return "{" + ",".join(f"{key}:{item}" for key, item in items) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ",".join(_canonical(item, largest) for item in value) + ")"
    if is_dataclass(value):
        own = (getattr(value, f.name) for f in fields(value) if f.name not in NO_MEANING)
        parts = (_canonical(part, largest) for part in own)
        return f"{type(value).__name__}({','.join(parts)})"
    return repr(value)


def _array_text(array: Array) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"{array.dtype.name}{list(array.shape)}{digest}"
