"""The declaration of an operator; tests, autodiff, cost model, processors and docs all read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType

COEXEC = "coexec"
"""Domain of operators that ONNX has no name for (gradients of convolution, pooling, ...)."""

TRAINING = "ai.onnx.preview.training"
"""ONNX's domain of optimizer operators."""


@dataclass(frozen=True)
class Work:
    """Arithmetic (a multiply-add counts 2) and the least memory traffic of a call."""

    flop: int
    bytes: int


@dataclass(frozen=True)
class Tolerance:
    """How far an implementation may be from the float64 reference, per element type."""

    relative: float = 1e-4
    absolute: float = 1e-5
    half_relative: float = 2e-2
    half_absolute: float = 2e-3


@dataclass(frozen=True)
class Sample:
    """A random operand of an example: uniform in [low, high) (integers too), seeded by the test."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = -1.0
    high: float = 1.0
    constant: bool = False


@dataclass(frozen=True)
class Example:
    """A call to try: operands are samples, arrays, or ``None`` where absent.

    An array operand is a value known before running (a shape, axes); a sample is data, unless
    marked ``constant``. ``gradient`` is False where the function is not differentiable at the
    sampled points (ties, integers) so that finite differences would mislead.
    """

    inputs: tuple[Sample | Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    gradient: bool = True
    version: int = 21

    def draw(self, rng: np.random.Generator) -> list[Array | None]:
        """Concrete operands."""
        return [_draw(rng, operand) for operand in self.inputs]

    def call(self, op: OpDef, operands: Sequence[Array | None]) -> OpCall:
        """The call on ``operands`` with its output types inferred."""
        constants = {
            i: np.asarray(value)
            for i, (spec, value) in enumerate(zip(self.inputs, operands, strict=True))
            if value is not None and (not isinstance(spec, Sample) or spec.constant)
        }
        bare = OpCall(
            op.op_type,
            tuple(None if o is None else TensorType.of(o) for o in operands),
            dict(self.attributes),
            constants=constants,
            domain=op.domain,
            version=self.version,
            output_count=self.outputs,
        )
        return op.typed(bare)


def _draw(rng: np.random.Generator, operand: Sample | Array | None) -> Array | None:
    if not isinstance(operand, Sample):
        return operand
    dtype = np.dtype(operand.dtype)
    if dtype.kind == "f":
        return rng.uniform(operand.low, operand.high, operand.shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, operand.shape).astype(dtype)
    return rng.integers(int(operand.low), int(operand.high), operand.shape).astype(dtype)


class GradientScope(ABC):
    """What a gradient rule sees of one node, and how it emits new nodes.

    ``inputs`` and ``outputs`` are the node's values, ``grads`` the gradients with respect to the
    outputs (``None``: nothing flows back), ``wanted[i]`` whether input ``i`` needs a gradient.
    """

    call: OpCall
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    grads: tuple[ir.Value | None, ...]
    wanted: tuple[bool, ...]

    @abstractmethod
    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output; its type is inferred from its OpDef."""

    @abstractmethod
    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs."""

    @abstractmethod
    def constant(self, value: Any, dtype: np.dtype[Any] | str) -> ir.Value:
        """A constant tensor (a NumPy array or a number becomes an initializer)."""

    @abstractmethod
    def type_of(self, value: ir.Value) -> TensorType:
        """Static type of a value."""

    def value(self, index: int) -> ir.Value:
        """Input ``index``, which must be present."""
        operand = self.inputs[index]
        if operand is None:
            raise ValueError(f"input {index} of {self.call.identifier} is missing")
        return operand

    def grad(self, index: int = 0) -> ir.Value:
        """Gradient with respect to output ``index``; zeros where nothing flows back."""
        gradient = self.grads[index]
        if gradient is not None:
            return gradient
        kind = self.call.output(index)
        return self.constant(np.zeros(kind.shape, kind.dtype), kind.dtype)


InferRule = Callable[[OpCall], Sequence[TensorType]]
Reference = Callable[[OpCall, Sequence[Any]], Sequence[Array]]
GradientRule = Callable[[GradientScope], Sequence[ir.Value | None]]
WorkRule = Callable[[OpCall], Work]
Body = Callable[[OpCall], ir.Function | None]


def streaming_work(flop_per_output: int = 1) -> WorkRule:
    """Work of an operator that reads its operands once and writes its outputs once."""

    def work(call: OpCall) -> Work:
        outputs = [t for t in call.outputs if t is not None]
        moved = sum(t.nbytes for t in (*call.inputs, *outputs) if t is not None)
        return Work(flop_per_output * (outputs[0].size if outputs else 0), moved)

    return work


@dataclass(frozen=True)
class OpDef:
    """Everything coexec knows about an operator.

    ``infer(call)`` returns the output types from ``call.inputs``, ``attributes`` and ``constants``
    (at least as many as ``call.output_count``) and raises ``ValueError`` with a plain reason when
    operands do not fit. ``reference(call, operands)`` computes outputs in NumPy, in whatever float
    type the operands have (float64 for gradient checks). ``gradient(scope)`` returns one gradient
    per input, ``None`` for inputs that get none; it never adds or broadcasts back, the walker does.
    ``not_differentiable`` says why there is no rule. ``value_inputs`` are positions whose *values*
    must be known before running (shapes, axes, repeats). ``body`` gives the call as an ONNX
    function of standard operators, so that engines without this operator can run it.
    ``in_place`` are pairs (output, input) that may share storage. ``view`` marks operators whose
    output is input 0 under another shape: no data moves.
    """

    op_type: str
    infer: InferRule
    reference: Reference
    domain: str = ""
    gradient: GradientRule | None = None
    not_differentiable: str = ""
    work: WorkRule = field(default_factory=streaming_work)
    tolerance: Tolerance = Tolerance()
    examples: tuple[Example, ...] = ()
    value_inputs: tuple[int, ...] = ()
    body: Body | None = None
    in_place: tuple[tuple[int, int], ...] = ()
    view: bool = False
    random: bool = False

    @property
    def identifier(self) -> str:
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    def typed(self, call: OpCall) -> OpCall:
        """``call`` with its output types filled in."""
        types = tuple(self.infer(call))
        return OpCall(
            call.op_type,
            call.inputs,
            call.attributes,
            types[: call.output_count],
            call.constants,
            call.domain,
            call.version,
            call.name,
            call.output_count,
        )
