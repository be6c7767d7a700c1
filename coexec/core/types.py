"""Static tensor types and operator calls, free of ONNX so that a saved program needs none of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a tensor, both known before anything runs."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: Array) -> TensorType:
        return cls(tuple(array.shape), array.dtype)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(tuple(int(d) for d in shape), self.dtype)

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return f"{_name_of(self.dtype)}[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class OpCall:
    """One operator applied to operands of known types: all that shape rules and kernels look at.

    ``inputs`` has ``None`` where an optional operand is absent; ``constants`` holds the values of
    operands that are known before running (shapes, axes, weights), by input position. ``outputs``
    is empty while the shape rule runs and complete afterwards; an unused optional output is
    ``None``. ``version`` is the opset version the operator is meant in. ``like`` is there in calls
    of a processor's own operators: a call of a declared one with as much work, on such elements.
    """

    op_type: str
    inputs: tuple[TensorType | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[TensorType | None, ...] = ()
    constants: Mapping[int, Array] = field(default_factory=dict)
    domain: str = ""
    version: int = 0
    name: str = ""
    output_count: int = 1
    like: OpCall | None = None

    @cached_property
    def memo(self) -> dict[str, str]:
        """Texts that were worked out of it, by what they are: a call never changes."""
        return {}

    @property
    def identifier(self) -> str:
        """``Conv`` or ``coexec::ConvWeightGrad``."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def input(self, index: int) -> TensorType:
        """Type of a required operand."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        if operand is None:
            raise ValueError(f"input {index} of {self.identifier} is missing")
        return operand

    def output(self, index: int) -> TensorType:
        """Type of an output that is in use."""
        result = self.outputs[index]
        if result is None:
            raise ValueError(f"output {index} of {self.identifier} is not in use")
        return result

    def has_input(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def has_output(self, index: int) -> bool:
        return index < len(self.outputs) and self.outputs[index] is not None

    def constant(self, index: int) -> Array | None:
        """Value of an operand known before running, else ``None``."""
        return self.constants.get(index)


def compute_dtype(call: OpCall) -> str:
    """Element type that a call computes in: its first floating operand's, else that of any."""
    kinds = (kind for kind in (*call.inputs, *call.outputs) if kind is not None)
    names = [_name_of(kind.dtype) for kind in kinds]
    return next((name for name in names if "float" in name), names[0] if names else "")


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    """NumPy makes names up anew each time."""
    return dtype.name


@dataclass(frozen=True)
class RegionNode:
    """An operator call with the names of the tensors it reads and writes ("" where absent)."""

    call: OpCall
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alone(cls, call: OpCall) -> RegionNode:
        """A node that makes ``call`` from ``x0``, ``x1``, ... and writes ``y0``, ``y1``, ..."""
        inputs = tuple(f"x{i}" if kind is not None else "" for i, kind in enumerate(call.inputs))
        outputs = tuple(f"y{i}" if kind is not None else "" for i, kind in enumerate(call.outputs))
        return cls(call, inputs, outputs)


@dataclass(frozen=True)
class Kept:
    """A tensor that an earlier region of the processor left at ``offset`` of its arena (bytes).

    ``after`` is whether a later region reads it, too.
    """

    offset: int
    nbytes: int
    after: bool


@dataclass(frozen=True)
class Part:
    """A tensor that lies in ``whole``, ``offset`` bytes behind its start."""

    whole: str
    offset: int


@dataclass(frozen=True)
class Region:
    """Nodes in execution order that one processor compiles as a whole.

    ``types`` covers every name. ``constants`` are values known before running.
    ``aliases`` maps an output to the input whose storage it replaces (a state tensor updated in
    place: a parameter, a running mean); nodes are ordered so that the writer comes after every
    reader of the old value. ``prepares`` allows a processor to keep rearranged copies of constants
    from run to run: faster, and in more memory. With ``sparing``, it keeps the process small, even
    where code has to be built for this region alone. Kernels that work in more than ``workspace``
    bytes are to do with less, if they can at some cost (0: with what they like).

    ``carriable`` are outputs that nobody but later regions of the same processor reads: a processor
    with an arena may leave them there instead of in buffers of their own. ``kept`` are those that
    earlier regions left, to be read here or to be left alone. ``joined`` says where tensors of all
    regions of the processor are best made, so that no Concat has to copy them: parts of memory that
    is taken with the first of them, in ``types`` as bytes.
    """

    nodes: tuple[RegionNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    prepares: bool = True
    carriable: frozenset[str] = frozenset()
    kept: Mapping[str, Kept] = field(default_factory=dict)
    sparing: bool = False
    workspace: int = 0
    joined: Mapping[str, Part] = field(default_factory=dict)

    @classmethod
    def alone(cls, call: OpCall) -> Region:
        """``call`` as a region; operands known before running are constants, the others inputs."""
        node = RegionNode.alone(call)
        kinds = zip(node.inputs + node.outputs, call.inputs + call.outputs, strict=True)
        constants = {node.inputs[i]: np.asarray(value) for i, value in call.constants.items()}
        return cls(
            (node,),
            tuple(name for name in node.inputs if name and name not in constants),
            tuple(name for name in node.outputs if name),
            {name: kind for name, kind in kinds if kind is not None},
            constants,
        )
