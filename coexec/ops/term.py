"""Gradient rules written as formulas: a ``Term`` is a value that arithmetic appends nodes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import onnx_ir as ir

from coexec.core.types import TensorType
from coexec.ops.opdef import GradientScope

Operand = Union["Term", float, int]


@dataclass(frozen=True, eq=False)
class Term:
    """A value of the graph under construction; numbers become constants of its element type."""

    scope: GradientScope
    value: ir.Value

    @property
    def type(self) -> TensorType:
        return self.scope.type_of(self.value)

    def like(self, other: Operand) -> Term:
        """``other`` as a term; a number takes this term's element type."""
        if isinstance(other, Term):
            return other
        dtype = self.type.dtype
        return Term(self.scope, self.scope.constant(np.asarray(other, dtype), dtype))

    def op(self, op_type: str, *others: Operand | None, **attributes: Any) -> Term:
        """Node ``op_type`` with this term as first operand."""
        rest = [None if o is None else self.like(o).value for o in others]
        return Term(self.scope, self.scope.op(op_type, [self.value, *rest], attributes))

    def cast(self, dtype: np.dtype[Any]) -> Term:
        """This term in another element type; itself if it has that type already."""
        if self.type.dtype == dtype:
            return self
        return self.op("Cast", to=int(ir.DataType.from_numpy(dtype)))

    def reshape(self, shape: tuple[int, ...]) -> Term:
        """This term in another shape of the same size; itself if it has that shape already."""
        if self.type.shape == tuple(shape):
            return self
        target = self.scope.constant(np.asarray(shape, np.int64), "int64")
        return self.op("Reshape", Term(self.scope, target))

    def expand(self, shape: tuple[int, ...]) -> Term:
        """This term broadcast to ``shape``; itself if it has that shape already."""
        if self.type.shape == tuple(shape):
            return self
        target = self.scope.constant(np.asarray(shape, np.int64), "int64")
        return self.op("Expand", Term(self.scope, target))

    def reduce_sum(self, axes: tuple[int, ...], keepdims: bool = False) -> Term:
        """Sum over ``axes``; itself if there are none."""
        if not axes:
            return self
        listed = self.scope.constant(np.asarray(axes, np.int64), "int64")
        return self.op("ReduceSum", Term(self.scope, listed), keepdims=int(keepdims))

    def where(self, yes: Operand, no: Operand) -> Term:
        """``yes`` where this boolean term holds, else ``no``; at least one of them is a term."""
        known = yes if isinstance(yes, Term) else no
        if not isinstance(known, Term):
            raise TypeError("where() needs a term to take the element type from")
        return self.op("Where", known.like(yes), known.like(no))

    def __add__(self, other: Operand) -> Term:
        return self.op("Add", other)

    def __sub__(self, other: Operand) -> Term:
        return self.op("Sub", other)

    def __mul__(self, other: Operand) -> Term:
        return self.op("Mul", other)

    def __truediv__(self, other: Operand) -> Term:
        return self.op("Div", other)

    def __radd__(self, other: Operand) -> Term:
        return self.like(other).op("Add", self)

    def __rsub__(self, other: Operand) -> Term:
        return self.like(other).op("Sub", self)

    def __rmul__(self, other: Operand) -> Term:
        return self.like(other).op("Mul", self)

    def __rtruediv__(self, other: Operand) -> Term:
        return self.like(other).op("Div", self)

    def __neg__(self) -> Term:
        return self.op("Neg")

    def __gt__(self, other: Operand) -> Term:
        return self.op("Greater", other)

    def __lt__(self, other: Operand) -> Term:
        return self.op("Less", other)

    def equals(self, other: Operand) -> Term:
        return self.op("Equal", other)


def input_term(g: GradientScope, index: int = 0) -> Term:
    """Operand ``index`` of the node that is differentiated."""
    return Term(g, g.value(index))


def output_term(g: GradientScope, index: int = 0) -> Term:
    """Result ``index`` of the node that is differentiated."""
    return Term(g, g.outputs[index])


def grad_term(g: GradientScope, index: int = 0) -> Term:
    """Gradient with respect to result ``index``."""
    return Term(g, g.grad(index))


def emit(
    g: GradientScope,
    op_type: str,
    operands: list[Term | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
) -> Term:
    """A node of any domain."""
    values = [None if o is None else o.value for o in operands]
    return Term(g, g.op(op_type, values, attributes, domain=domain))
