"""ONNX's random operators: normal and uniform numbers, Bernoulli trials, draws from classes.

https://onnx.ai/onnx/operators/onnx__RandomNormal.html and its like. The numbers are a function of
seed and step (``coexec::RandomNumbers``), of 24 bits each: drawn again they are the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.philox import normals, uniforms

FLOAT = int(ir.DataType.FLOAT)
INT64 = np.dtype(np.int64)

SCALES: Mapping[str, tuple[str, str]] = {
    "RandomNormal": ("mean", "scale"),
    "RandomNormalLike": ("mean", "scale"),
    "RandomUniform": ("low", "high"),
    "RandomUniformLike": ("low", "high"),
}
"""Attributes, whose defaults are 0 and 1 in all four."""

DRAWING = (*SCALES, "Bernoulli", "Multinomial")
"""ONNX's operators that draw whenever they run; ``Dropout`` does so in training alone."""


class NodeMaker(Protocol):
    """What appends nodes: to a function's body, or to the graph of a training."""

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output."""

    def constant(self, value: Any, dtype: np.dtype[Any] | str) -> ir.Value:
        """A constant tensor."""


@dataclass(frozen=True)
class Draw:
    """``shape`` numbers: ``offset + scale * z``, z normal (0, 1) or uniform in [0, 1)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    normal: bool
    offset: float
    scale: float
    seed: int

    @property
    def size(self) -> int:
        return prod(self.shape)

    @classmethod
    def of(cls, call: OpCall) -> Draw:
        """Of a ``coexec::RandomNumbers``; ``ValueError`` where attributes make no sense."""
        shape = call.attribute("shape")
        if shape is None or min(shape, default=0) < 0:
            raise ValueError(f"RandomNumbers: shape {shape}")
        return cls(
            tuple(int(d) for d in shape),
            _element(int(call.attribute("dtype", FLOAT)), call),
            bool(call.attribute("normal", 0)),
            float(call.attribute("offset", 0.0)),
            float(call.attribute("scale", 1.0)),
            int(call.attribute("seed", 0)),
        )

    def numbers(self, counter: int) -> Array:
        """Those of a step."""
        make = normals if self.normal else uniforms
        drawn = make(self.size, counter, self.seed) * self.scale + self.offset
        return np.asarray(drawn.reshape(self.shape).astype(self.dtype))

    def attributes(self) -> dict[str, Any]:
        """As the attributes of a ``coexec::RandomNumbers``."""
        return {
            "shape": self.shape,
            "dtype": int(ir.DataType.from_numpy(self.dtype)),
            "normal": int(self.normal),
            "offset": self.offset,
            "scale": self.scale,
            "seed": self.seed,
        }


def _element(code: int, call: OpCall) -> np.dtype[Any]:
    """The type that an attribute names, which must be of floats."""
    dtype = np.dtype(ir.DataType(code).numpy())
    if not is_float(dtype):
        raise ValueError(f"{call.identifier}: random numbers of type {dtype.name}")
    return dtype


def seed_number(call: OpCall) -> int:
    """The bits of ONNX's seed, a float; 0 where none is given."""
    return int(np.float32(call.attribute("seed", 0.0)).view(np.uint32))


def draw_of(call: OpCall, seed: int) -> Draw:
    """What an operator of ONNX draws: its result, or what it compares probabilities with."""
    if call.op_type == "Bernoulli":
        return Draw(call.input(0).shape, call.input(0).dtype, False, 0.0, 1.0, seed)
    if call.op_type == "Multinomial":
        of_rows = (call.input(0).shape[0], samples(call), 1)
        return Draw(of_rows, call.input(0).dtype, False, 0.0, 1.0, seed)
    first, second = (
        float(call.attribute(name, default))
        for name, default in zip(SCALES[call.op_type], (0.0, 1.0), strict=True)
    )
    normal = "Normal" in call.op_type
    if not normal and second < first:
        raise ValueError(f"{call.op_type}: low {first} above high {second}")
    shape = call.input(0).shape if call.op_type.endswith("Like") else call.attribute("shape")
    if shape is None or min(shape, default=0) < 0:
        raise ValueError(f"{call.op_type}: shape {shape}")
    dtype = _result_type(call, call.input(0).dtype if call.inputs else np.dtype(np.float32))
    scale = second if normal else second - first
    return Draw(tuple(int(d) for d in shape), dtype, normal, first, scale, seed)


def _result_type(call: OpCall, default: np.dtype[Any]) -> np.dtype[Any]:
    """What attribute ``dtype`` says, else ``default``; of floats."""
    code = call.attribute("dtype")
    return _element(int(ir.DataType.from_numpy(default)) if code is None else int(code), call)


def samples(call: OpCall) -> int:
    """How often a Multinomial draws of each row."""
    count = int(call.attribute("sample_size", 1))
    if count < 1:
        raise ValueError(f"Multinomial: sample_size {count}")
    return count


def trial_type(call: OpCall) -> np.dtype[Any]:
    """Element type of the results of Bernoulli (default: the operand's) or Multinomial (int32)."""
    code = call.attribute("dtype")
    if call.op_type == "Bernoulli":
        return call.input(0).dtype if code is None else np.dtype(ir.DataType(int(code)).numpy())
    dtype = np.dtype(ir.DataType(int(code or ir.DataType.INT32)).numpy())
    if dtype not in (np.int32, np.int64):
        raise ValueError(f"Multinomial: results of type {dtype.name}")
    return dtype


def draw_nodes(
    make: NodeMaker, call: OpCall, operand: ir.Value | None, counter: ir.Value, seed: int
) -> ir.Value:
    """``call`` in nodes that draw by ``counter`` (int64, one element)."""
    draw = draw_of(call, seed)
    numbers = make.op("RandomNumbers", [counter], draw.attributes(), domain=COEXEC)
    if call.op_type in SCALES:
        return numbers
    result = {"to": int(ir.DataType.from_numpy(trial_type(call)))}
    if call.op_type == "Bernoulli":
        return make.op("Cast", [make.op("Less", [numbers, operand])], result)
    axis, middle = make.constant(np.array(1), "int64"), make.constant(np.array([1]), "int64")
    chances = make.op("Softmax", [operand], {"axis": -1})
    ends = make.op("Unsqueeze", [make.op("CumSum", [chances, axis]), middle])
    passed = make.op("Cast", [make.op("GreaterOrEqual", [numbers, ends])], {"to": FLOAT})
    count = make.op("ReduceSum", [passed, make.constant(np.array([2]), "int64")], {"keepdims": 0})
    last = make.constant(np.float32(max(call.input(0).shape[1] - 1, 0)), "float32")
    return make.op("Cast", [make.op("Min", [count, last])], result)


def body(call: OpCall) -> ir.Function:
    """Outside training the step is 0: a session draws the same numbers in each run."""
    builder = FunctionBuilder(call)
    operand = builder.inputs[0] if builder.inputs else None
    counter = builder.constant(np.array(0), "int64")
    return builder.function([draw_nodes(builder, call, operand, counter, seed_number(call))])


def infer(call: OpCall) -> Sequence[TensorType]:
    draw = draw_of(call, 0)
    return (TensorType(draw.shape, draw.dtype),)


def draw_numbers(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (draw_of(call, seed_number(call)).numbers(0),)


def infer_bernoulli(call: OpCall) -> Sequence[TensorType]:
    if not is_float(call.input(0).dtype):
        raise ValueError(f"Bernoulli: probabilities {call.input(0)}")
    return (TensorType(call.input(0).shape, trial_type(call)),)


def bernoulli_trials(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    drawn = draw_of(call, seed_number(call)).numbers(0)
    return ((drawn < np.asarray(operands[0])).astype(trial_type(call)),)


def infer_multinomial(call: OpCall) -> Sequence[TensorType]:
    kind = call.input(0)
    if kind.rank != 2 or not is_float(kind.dtype) or not kind.shape[1]:
        raise ValueError(f"Multinomial: logarithms of chances {kind}, not (rows, classes)")
    return (TensorType((kind.shape[0], samples(call)), trial_type(call)),)


def multinomial(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The class within whose part of [0, 1] a uniform number lies."""
    logs = np.asarray(operands[0])
    logs = logs.astype(np.float32) if logs.dtype.itemsize < 4 else logs
    chances = np.exp(logs - logs.max(-1, keepdims=True))
    ends = np.cumsum(chances / chances.sum(-1, keepdims=True), -1)[:, None]
    drawn = draw_of(call, seed_number(call)).numbers(0)
    found = np.minimum((drawn >= ends).sum(-1), logs.shape[1] - 1)
    return (found.astype(trial_type(call)),)


def infer_numbers(call: OpCall) -> Sequence[TensorType]:
    draw, counter = Draw.of(call), call.input(0)
    if counter.size != 1 or counter.dtype != INT64:
        raise ValueError(f"RandomNumbers: the counter must be one int64, got {counter}")
    return (TensorType(draw.shape, draw.dtype),)


def numbers_of_step(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (Draw.of(call).numbers(int(np.asarray(operands[0]).reshape(()))),)


def work(call: OpCall) -> Work:
    """About 25 integer operations for a word, and as many for what is made of it."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(50 * call.output(0).size, moved)


def no_flow(g: GradientScope) -> Sequence[ir.Value | None]:
    """Numbers do not depend on the values of operands, trials only by steps."""
    return (None,) * len(g.inputs)


ON_ITS_OWN = "the output depends on shapes, indices or attributes only"


def _like(*shape: int, **attributes: Any) -> Example:
    return Example((Sample(shape),), attributes)


def _alone(shape: tuple[int, ...], **attributes: Any) -> Example:
    return Example((), {"shape": shape, **attributes}, gradient=False)


def _trials(op_type: str, rule: Any, reference: Any, **more: Any) -> OpDef:
    return OpDef(op_type, rule, reference, work=work, body=body, random=True, **more)


def _step(shape: tuple[int, ...], **attributes: Any) -> Example:
    counter = Sample((), "int64", 0, 2**40)
    return Example((counter,), {"shape": shape, **attributes}, gradient=False)


OPS = (
    *(
        _trials(
            name,
            infer,
            draw_numbers,
            not_differentiable=ON_ITS_OWN,
            examples=(_alone((3, 5), seed=2.5), _alone((67,), **{second: 3.0})),
        )
        for name, second in (("RandomNormal", "scale"), ("RandomUniform", "high"))
    ),
    *(
        _trials(
            name,
            infer,
            draw_numbers,
            gradient=no_flow,
            examples=(_like(3, 5), _like(67, **{first: -1.0}), _like(2, 3, 7, seed=7.0)),
        )
        for name, first in (("RandomNormalLike", "mean"), ("RandomUniformLike", "low"))
    ),
    _trials(
        "Bernoulli",
        infer_bernoulli,
        bernoulli_trials,
        gradient=no_flow,
        examples=tuple(
            Example((Sample(shape, low=0.0),), {"seed": 1.0 + i})
            for i, shape in enumerate(((3, 5), (67,), (2, 3, 7)))
        ),
    ),
    _trials(
        "Multinomial",
        infer_multinomial,
        multinomial,
        not_differentiable="the result is a position",
        examples=(
            Example((Sample((3, 5)),), {"sample_size": 7, "seed": 1.0}, gradient=False),
            Example((Sample((2, 9), low=-3.0),), {"dtype": int(ir.DataType.INT64)}, gradient=False),
        ),
    ),
    OpDef(
        "RandomNumbers",
        infer_numbers,
        numbers_of_step,
        domain=COEXEC,
        not_differentiable=ON_ITS_OWN,
        work=work,
        examples=(
            _step((3, 5)),
            _step((1037,), normal=1, seed=1234567890123),
            _step((2, 3, 4, 5), offset=-1.0, scale=2.0, seed=-1),
            _step((130,), normal=1, dtype=int(ir.DataType.FLOAT16)),
            _step((5, 21), dtype=int(ir.DataType.DOUBLE)),
            _step((0, 4)),
        ),
        random=True,
    ),
)
